"""The README's guide "Add a dataset", followed exactly: its files, its commands, and no other file."""

import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from tests.support.ledger_checks import environment
from tests.support.stage import Stage

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
HEADRACE = str(Path(sys.executable).with_name("headrace"))


def guide() -> str:
    return (ROOT / "README.md").read_text().split("## Add a dataset\n", 1)[1].split("\n## ", 1)[0]


def files_of_the_guide() -> dict[str, str]:
    """What is to be written into each file: the last one that the paragraph before a block names."""
    found = {}
    for match in FENCE.finditer(guide()):
        before = guide()[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        if match[1] in ("python", "sql", "yaml", "json"):
            name = re.findall(r"`([\w/]+\.\w+)`", before)[-1]
            found[name] = match[2]
    return found


def commands_of_the_guide() -> list[list[str]]:
    (commands,) = (match[2] for match in FENCE.finditer(guide()) if match[1] == "")
    return [line.split() for line in commands.splitlines()]


def test_guide_followed_exactly_adds_a_dataset(stage: Stage, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for part in ("plugins/datasets", "dbt"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    files = files_of_the_guide()
    assert sorted(files) == [
        "dbt/models/marts/payments.sql",
        "dbt/models/marts/payments.yml",
        "payments.ndjson",
        "plugins/datasets/payments.py",
    ]
    for name, content in files.items():
        assert not (checkout / name).exists()
        (checkout / name).write_text(content)
    variables = environment(stage.deployment.settings) | {
        "HEADRACE_DATASETS_DIR": str(checkout / "plugins" / "datasets"),
        "HEADRACE_DBT_DIR": str(checkout / "dbt"),
    }
    outputs = []
    for command in commands_of_the_guide():
        assert command[0] == "headrace"
        done = subprocess.run(
            [HEADRACE, *command[1:]], cwd=checkout, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "1 staged, 1 dead" in outputs[1]
    assert "wrong_type" in outputs[3]
    assert stage.query("select paymentid, amount from marts.payments") == [("P1", Decimal("12.50"))]
