"""Topics of change events for `headrace infer` and `check`: fields of rows, the table's key, the order of versions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.catalog import load_declarations
from headrace.check import models
from headrace.settings import Settings
from tests.support.change_events import ANNE, envelope, key_with_schema, text, with_schema
from tests.support.inferred import inferred, records_of

OLD = dict.fromkeys(ANNE)
DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Integer
from headrace.dataset import Dataset, KafkaTopic
from headrace.formats import Debezium, Json

class Customer(BaseModel):
    id: Integer

DATASET = Dataset(name="customers", contract=Customer, key="id", source=KafkaTopic(topic="c"), format=FORMAT)
"""


@pytest.mark.parametrize("is_with_schema", [False, True])
def test_inference_on_change_events_declares_the_table(tmp_path: Path, is_with_schema: bool) -> None:
    def event(op: str, number: int) -> tuple[bytes, bytes]:
        key, row = {"id": number}, ANNE | {"id": number}
        value: Any = envelope(op, None if op == "d" else row, OLD | key if op == "d" else None)
        if is_with_schema:
            return text(key_with_schema(key)), text(with_schema(value))
        return text(key), text(value)

    pairs: list[tuple[bytes | None, bytes | None]] = [event("cu"[n % 2], n) for n in range(30)]
    pairs += [event("d", 3), (event("d", 3)[0], None), (None, text({"ts_ms": 1}))]
    dataset, trial, draft = inferred(records_of(pairs), tmp_path)

    assert draft.format_text == "Debezium()"
    assert (dataset.key, dataset.keyed, dataset.key_format) == ("id", True, None)
    columns = {column.name: column.sql_type for column in dataset.compiled.columns}
    assert columns == {"id": "bigint", "first_name": "text", "last_name": "text", "email": "text"}
    assert (trial.staged, trial.tombstones, trial.ignored, trial.dead) == (30, 2, 1, 0)
    assert trial.lines()[0].endswith("0 dead letters, 1 ignored")


@pytest.mark.parametrize(
    ("format", "meta", "expected"),
    [
        ("Debezium()", {"key": "id"}, "position"),
        ('Debezium(versions="offset")', {"key": "id", "versions": "position"}, "offset"),
        ("Json()", {"key": "id", "versions": "position"}, "offset"),
        ("Debezium()", {"key": "id", "versions": "position"}, None),
        ("Json()", {"key": "id"}, None),
    ],
)
def test_check_compares_the_order_of_versions_with_the_format(
    tmp_path: Path, format: str, meta: dict[str, str], expected: str | None
) -> None:
    (tmp_path / "customers.py").write_text(DECLARATION.replace("FORMAT", format))
    source: Any = SimpleNamespace(identifier="customers", config=SimpleNamespace(meta=meta), columns={})
    declarations = load_declarations(tmp_path)
    faults = list(models._of_source(source, declarations, Settings(datasets_dir=tmp_path, home=tmp_path)))
    assert [remedy for _, _, remedy in faults] == ([f"write meta: {{versions: {expected}}}"] if expected else [])
