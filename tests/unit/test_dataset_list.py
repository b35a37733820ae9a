"""The list of `headrace datasets`."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from headrace.cli import main

DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, File, KafkaTopic, RedisStream

class Thing(BaseModel):
    model_config = CONTRACT_CONFIG
    ID: Text
    NUMBER: Text

DATASET = Dataset(contract=Thing, %s)
"""


def declare(folder: Path, **arguments: str) -> None:
    for name, text in arguments.items():
        (folder / f"{name}.py").write_text(DECLARATION % f"name={name!r}, {text}")


def datasets(folder: Path, *options: str) -> Result:
    environ = {"HEADRACE_HOME": "/nonexistent", "HEADRACE_DATASETS_DIR": str(folder)}
    return CliRunner().invoke(main, ["datasets", *options], env=environ)


def test_datasets_lists_source_format_key_dag_and_schedule(tmp_path: Path) -> None:
    declare(
        tmp_path,
        orders="source=KafkaTopic(topic='shop.orders'), key=('ID', 'NUMBER'), schedule_s=30",
        zones="source=File(path='zones.csv.gz'), key='ID', schedule_s=5",
        pulse="source=RedisStream(stream='pulse')",
    )
    result = datasets(tmp_path)
    assert result.exit_code == 0, result.output
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "dataset source format key DAG every",
        "orders topic shop.orders json ID, NUMBER ingest_orders 30 s",
        "pulse stream pulse json ingest_pulse 1 min",
        "zones file zones.csv.gz csv ID load_zones 1 h",
        "which of them are paused is not known: Postgres cannot be asked",
    ]
    listed = json.loads(datasets(tmp_path, "--json").stdout)["datasets"]
    assert listed[0] == {
        "dataset": "orders", "kind": "topic", "source": "shop.orders", "format": "json", "key": ["ID", "NUMBER"],
        "dag": "ingest_orders", "schedule_s": 30, "description": "", "pause": None, "error": None,
    }  # fmt: skip
    assert listed[2]["schedule_s"] == 3600


def test_datasets_names_a_declaration_that_cannot_be_used_beside_the_others(tmp_path: Path) -> None:
    declare(tmp_path, orders="source=KafkaTopic(topic='orders')", zones="source=File(path='zones.csv'), max_lag=0")
    result = datasets(tmp_path)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["dataset", "orders", "zones", "zones:", "which"]
    assert "max_lag is 0, expected more than 0" in result.stdout
    faulty = json.loads(datasets(tmp_path, "--json").stdout)["datasets"][1]
    assert (faulty["dag"], faulty["kind"]) == ("load_zones", None)
    assert "max_lag is 0" in faulty["error"]


def test_datasets_without_declarations_names_the_command_that_writes_one(tmp_path: Path) -> None:
    assert "`headrace infer`" in datasets(tmp_path).stdout
    assert json.loads(datasets(tmp_path, "--json").stdout) == {"datasets": [], "pauses_known": False}
