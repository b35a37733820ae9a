"""Completion in shells: the scripts, and what is offered."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from headrace.cli import main
from headrace.cli.completion import SHELLS, VARIABLE

DECLARATION = 'raise PydanticCustomError("overdrawn", "the account is overdrawn")'


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Datasets payments and payouts, and two models; nothing of it can be imported or parsed."""
    for name in ("datasets/payments.py", "datasets/payouts.py", "datasets/_draft.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(DECLARATION if name.endswith("payments.py") else "no Python")
    for name in ("dbt/models/marts/payments.sql", "dbt/models/staging/stg_kafka__payments.sql"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("select")
    monkeypatch.setenv("HEADRACE_HOME", "/nonexistent")
    monkeypatch.setenv("HEADRACE_DATASETS_DIR", str(tmp_path / "datasets"))
    monkeypatch.setenv("HEADRACE_DBT_DIR", str(tmp_path / "dbt"))
    return tmp_path


def offered(line: str) -> list[str]:
    """What a shell offers for the last word of a line."""
    words = [*shlex.split(line), ""] if line.endswith(" ") else shlex.split(line)
    found = BashComplete(main, {}, "headrace", VARIABLE).get_completions(words[:-1], words[-1])
    return [f"{item.type}:{item.value}" if item.type != "plain" else str(item.value) for item in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dra", ["drain"]),
        ("drain pay", ["payments", "payouts"]),
        ("drain payments payo", ["payouts"]),
        ("verify payo", ["payouts"]),
        ("accept-loss payo", ["payouts"]),
        ("load pay", ["payments", "payouts"]),
        ("load payments ./x", ["file:./x"]),
        ("replay payments --reason over", ["overdrawn"]),
        ("replay payouts --reason over", []),
        ("dead-letters payments --reason overd", ["overdrawn"]),
        ("replay --reason invalid_u", ["invalid_utf8"]),
        ("build --select stg", ["stg_kafka__payments"]),
        ("build --select +pay", ["+payments"]),
        ("build --select 'stg_kafka__payments @pay'", ["stg_kafka__payments @payments"]),
        ("kafka get", ["get-offsets"]),
        ("completion f", ["fish"]),
        ("drain --max-r", ["--max-records"]),
    ],
)
def test_completion_offers_names_that_begin_so(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_completion_with_a_setting_that_cannot_be_used_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_POSTGRE_DSN", "x")
    assert offered("drain pay") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script_that_the_shell_reads(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"{VARIABLE}={shell}_complete" in result.stdout
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=result.stdout, text=True, check=True)


def test_completion_of_another_shell_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
