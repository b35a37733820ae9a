"""Inference on records of well-known producers, and on hostile ones: all good records are staged."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.dataset import load_dataset
from headrace.exceptions import DatasetError
from headrace.infer.declaration_text import declaration_text
from headrace.infer.documents import read_documents
from headrace.infer.draft import Draft
from headrace.infer.inference import fill_draft, source_of
from headrace.infer.model_texts import model_texts
from headrace.infer.sample import Sample
from headrace.sample.generate import generate_records
from headrace.settings import Settings
from tests.support.inferred import inferred, json_records, records_of
from tests.support.known_producers import clickstream, github, stripe


def debezium(number: int) -> dict[str, Any]:
    """A change event of Debezium's Postgres connector, without its schema."""
    row = {"id": number, "name": "a", "amount": "12.50", "updated_at": 1_718_000_000_123_456}
    return {
        "before": None if number % 2 else row, "after": row, "op": "cu"[number % 2], "ts_ms": 1_718_000_000_123,
        "source": {"version": "3.1.0.Final", "connector": "postgresql", "lsn": 24_023_128, "table": "orders"},
        "transaction": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "key", "time_column", "expected"),
    [
        (
            stripe,
            "id",
            "created",
            {"created": "timestamptz", "data": "jsonb", "livemode": "boolean", "request": "jsonb"},
        ),
        (
            github,
            "number",
            "pushed_at",
            {"order_": "bigint", "from_": "text", "created": "boolean", "pull_request": "jsonb"},
        ),
        (clickstream, "messageId", "timestamp", {"messageid": "uuid", "timestamp": "timestamptz", "userid": "jsonb"}),
        (
            debezium,
            "id",
            None,
            {"id": "bigint", "name": "text", "amount": "text", "updated_at": "bigint"},  # of the rows in them
        ),
    ],
)
def test_inference_stages_all_records_of_a_known_producer(
    tmp_path: Path, make: Any, key: str, time_column: str | None, expected: dict[str, str]
) -> None:
    dataset, trial, draft = inferred(json_records([make(number) for number in range(200)]), tmp_path)
    assert (trial.staged, trial.dead) == (200, 0)
    assert (dataset.key, dataset.time_column) == (key, time_column)
    columns = {column.name: column.sql_type for column in dataset.compiled.columns}
    assert columns | expected == columns
    assert draft.format_text == ("Debezium()" if make is debezium else None)
    source = yaml.safe_load(model_texts(draft)["models/staging/stg_kafka__things.yml"])["sources"][0]["tables"][0]
    assert source["config"]["meta"] == {"key": key.lower()} | ({"versions": "position"} if make is debezium else {})


@pytest.mark.parametrize("name", ["jobs", "events", "rides", "telemetry"])
@pytest.mark.parametrize("bad_percent", [0, 1])
def test_inference_on_the_sample_data_stages_all_good_records(tmp_path: Path, name: str, bad_percent: float) -> None:
    made = list(generate_records(name, 2_500, 7, bad_percent, Settings().data_dir))
    records = records_of([(record.key, record.value) for record in made])
    dataset, trial, _ = inferred(records, tmp_path, name, stream=name == "telemetry")
    declared = {"jobs": "JOBIDENTIFIER", "events": "event_id", "rides": None, "telemetry": "event_id"}
    assert dataset.key == declared[name]
    good = [record for record in made if record.reason is None]
    assert trial.staged >= len(good)
    contract = dataset.compiled
    for record in good:
        assert isinstance(contract.decode(record.key, record.value), list), record.value
    assert trial.dead <= len(made) - len(good)


def nested(text: str, depth: int) -> bytes:
    return b'{"a": ' + b'{"a": ' * depth + text.encode() + b"}" * depth + b"}"


HOSTILE = [
    b"", b"{", b"[]", b"null", b"1", b'"text"', b"\xff\xfe", b"\x00" * 3, b'{"a": NaN}', b'{"a": 1, "a": 2}',
    b'{"a": "\\u0000"}', b'{"a": ' + b"9" * 4_400 + b"}", b'{"a": 1e999}', b'{"a": -1e-999}', nested("1", 190),
    nested("1", 5_000), b'{"a": ' + b"[" * 100_000, b'{"": 1}', b'{"\\u202e": "\\ud83d\\ude00"}',
    b'{"a": "' + b"x" * 100_000 + b'"}', b'{"a\\"]\\n#": 1, "\\n\\"\\"\\"": 2}',
]  # fmt: skip


def test_inference_on_hostile_values_writes_a_declaration_that_loads(tmp_path: Path) -> None:
    dataset, trial, _ = inferred(records_of([(None, value) for value in HOSTILE]), tmp_path)
    assert trial.staged + trial.dead == len(HOSTILE)
    assert {"invalid_json", "empty_payload", "invalid_utf8", "too_deep", "duplicate_key"} <= set(trial.reasons)
    assert dataset.name == "things"


def test_inference_on_random_documents_stages_what_is_json(tmp_path: Path) -> None:
    chance = random.Random(5)

    def value(depth: int = 0) -> Any:
        kind = chance.randrange(3 if depth > 3 else 5)
        if kind == 0:
            return chance.choice([None, True, False, 0, -1, 2**70, 1.5, 1e-7, "", "x", "2026-03-01", "10:00", "1"])
        if kind == 1:
            return chance.randrange(-(2**63), 2**63)
        if kind == 2:
            return "".join(chance.choices("aé😀\"'\\\n{}#$", k=chance.randrange(90)))
        if kind == 3:
            return [value(depth + 1) for _ in range(chance.randrange(3))]
        return {chance.choice("abc def"): value(depth + 1) for _ in range(chance.randrange(3))}

    for number in range(40):
        names = chance.sample(
            ["a", "b", "user", "At", "time", "ID", "x y", "Float", "'", '"', "\n", "#", "{}", "$x"], 6
        )
        documents = [{name: value() for name in names if chance.random() < 0.8} for _ in range(chance.randrange(1, 40))]
        if not any(documents):
            continue
        _, trial, _ = inferred(json_records(documents), tmp_path, f"random_{number}")
        assert trial.dead == 0, (documents, trial)


@pytest.mark.parametrize("values", [[], [b"plain text"], [b"\x08\x96\x01"], [b"[1]", b"[2]"]])
def test_inference_without_documents_is_refused_with_a_remedy(tmp_path: Path, values: list[bytes]) -> None:
    with pytest.raises(DatasetError, match="expected"):
        inferred(records_of([(None, value) for value in values]), tmp_path)


def test_inference_keeps_many_names_in_extra(tmp_path: Path) -> None:
    documents = [{"id": i} | {f"k{i * 7 + j}": 1 for j in range(7)} for i in range(100)]
    dataset, trial, draft = inferred(json_records(documents), tmp_path)
    assert len(dataset.compiled.columns) <= 200
    assert trial.staged == 100
    assert any("_extra" in note for note in draft.notes)


def test_inference_takes_a_key_off_the_front_of_values(tmp_path: Path) -> None:
    values = [b"%d|" % i + json.dumps({"id": i}).encode() for i in range(20)]
    dataset, trial, _ = inferred(records_of([(None, value) for value in values]), tmp_path)
    assert (dataset.format.name, trial.staged) == ("keyed_json", 20)


def test_inference_from_a_stream_of_an_awkward_name_makes_files_that_load(tmp_path: Path) -> None:
    name = 'a"b: {{ c }}\n\\'
    source, text, _ = source_of(Settings(home=tmp_path), "stream", name, None)
    draft = Draft("readings", source, text, f"stream {name}")
    records = json_records([{"id": "1"}])
    documents = read_documents(name, records, Settings(home=tmp_path))
    fill_draft(draft, Sample([(0, record) for record in records], 1), documents, all_text=True)
    (tmp_path / "readings.py").write_text(declaration_text(draft))
    assert load_dataset(tmp_path, "readings").source.name == name
    for path, written in model_texts(draft).items():
        if path.endswith(".yml"):
            assert yaml.safe_load(written)
