"""The fast way against the slow one: a line of COPY text is the row that the contract makes of the same record."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from headrace.contract import Contract
from headrace.contracts.copy_text import LineMaker
from headrace.dataset import Dataset, KafkaTopic, dataset_names, load_dataset
from tests.support.fuzz_oracle import exact_json
from tests.support.fuzz_payloads import payloads
from tests.support.job_contract import BAD_JOBS, VALID, Job, job, with_extra
from tests.support.shapes import DECLARED, SHAPES

SEED = 20_261_122
CORPUS = sorted((Path(__file__).parents[1] / "corpus").iterdir())
BATCH_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
JOBS = Dataset(name="jobs", contract=Job, source=KafkaTopic(topic="jobs"), key="JOBIDENTIFIER")


def _maker(dataset: Dataset) -> LineMaker:
    bind = dataset.copy_line_binder
    assert bind is not None
    return bind(3, 1, BATCH_ID)


def _cells(line: str) -> list[str | None]:
    """What COPY reads in a line of its text format: tabs between, backslashes before what they take the meaning of."""
    assert line.endswith("\n")
    assert line.count("\n") == 1
    return [None if cell == "\\N" else re.sub(r"\\(.)", _unescaped, cell) for cell in line[:-1].split("\t")]


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1])


def _value(cell: str | None, sql_type: str) -> Any:
    """What Postgres's input function makes of a cell."""
    if cell is None:
        return None
    if sql_type.startswith("numeric"):
        return Decimal(cell)
    if sql_type == "timestamptz":
        assert cell.endswith("+00")
        return datetime.fromisoformat(cell)
    if sql_type == "bytea":
        return bytes.fromhex(cell[2:]) if cell.startswith("\\x") else cell.encode("ascii")
    if sql_type == "boolean":
        return {"t": True, "f": False}[cell]
    reader: Any = {"text": str, "jsonb": exact_json, "double precision": float}.get(sql_type, int)
    return reader(cell)


def _assert_the_same(dataset: Dataset, key: bytes | None, value: bytes | None) -> bool:
    """Hold a line, if there is one, to the row; False when there is none."""
    return _is_the_same(dataset.compiled, _maker(dataset), key, value)


def _is_the_same(contract: Contract, maker: LineMaker, key: bytes | None, value: bytes | None) -> bool:
    line = maker(9_000_000_001, "2019-03-01 10:00:00.123+00:00", key, value, r"a\\b")
    if line is None:
        return False
    row = contract.decode(key, value)

    def said() -> str:
        return f"{key!r:.200} {value!r:.1000}: {line!r:.1000} for {row!r:.1000}"

    assert isinstance(row, list), said()
    kinds = [column.sql_type for column in contract.columns]
    cells = _cells(line)
    found = [_value(cell, kind) for cell, kind in zip(cells, kinds, strict=False)]
    extra = row.pop()
    for i in contract.json_columns:
        row[i] = None if row[i] is None else exact_json(row[i])
    # Python calls a time that comes twice in its zone unequal to any other
    row = [item.astimezone(UTC) if isinstance(item, datetime) else item for item in row]
    assert found == row, said()
    assert [type(item) for item in found] == [type(item) for item in row], said()
    generation, partition, offset, at, cell, headers, deleted, extra_cell, batch_id = cells[len(kinds) :]
    assert (generation, partition, offset, batch_id) == ("3", "1", "9000000001", str(BATCH_ID))
    assert (at, headers) == ("2019-03-01 10:00:00.123+00:00", r"a\b")
    assert deleted == "f"
    assert (extra_cell and exact_json(extra_cell)) == (extra and exact_json(extra)), said()
    assert _value(cell, "bytea") == key, said()
    return True


@pytest.mark.parametrize("name", SHAPES)
def test_lines_of_fuzzed_payloads_are_the_contracts_rows(name: str) -> None:
    datasets_dir, shape = SHAPES[name]
    dataset = load_dataset(datasets_dir, name)
    contract, maker = dataset.compiled, _maker(dataset)
    ways: Counter[str] = Counter()
    for payload in payloads(shape, SEED, 2_500, huge=False):
        if _is_the_same(contract, maker, payload.key, payload.value):
            ways["fast"] += 1
        else:
            ways["slow" if isinstance(contract.decode(payload.key, payload.value), list) else "dead"] += 1
    assert min(ways["fast"], ways["slow"], ways["dead"]) > 50, ways


def test_every_dataset_is_fuzzed() -> None:
    assert set(SHAPES) == {*dataset_names(DECLARED), "readings"}


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_line_of_a_file_of_the_corpus_is_the_contracts_row(path: Path) -> None:
    is_fast = _assert_the_same(load_dataset(DECLARED, "jobs"), b"1", path.read_bytes())
    assert not is_fast or path.stem.startswith("valid-")


@pytest.mark.parametrize("name", BAD_JOBS)
def test_bad_record_has_no_line(name: str) -> None:
    assert _maker(JOBS)(0, "", b"job-1", BAD_JOBS[name][0], "") is None


@pytest.mark.parametrize("key", [b"job-2", None, b"", b"job-1\0", b"job-1 ", b"\xff"])
def test_record_with_another_key_has_no_line(key: bytes | None) -> None:
    assert _maker(JOBS)(0, "", key, job(), "") is None


def test_tombstone_has_no_line() -> None:
    assert _maker(JOBS)(0, "", b"job-1", None, "") is None


def _spellings() -> Iterator[tuple[str, bytes]]:
    document = json.loads(VALID)
    yield "compact", VALID.encode()
    yield "spaced", json.dumps(document).encode()
    yield "pretty", json.dumps(document, indent=2).encode()
    yield "other_order", json.dumps(dict(reversed(document.items()))).encode()
    yield "time_with_t", job("2019-03-01 10", "2019-03-01T10")
    yield "time_with_z", job("10:00:00", "10:00:00Z")
    yield "time_with_zone", job("10:00:00", "10:00:00.5+05:30")
    yield "date", job("2019-03-01 10:00:00", "2019-03-01")
    yield "money_of_15_digits", job("12.5", "9999999999999.99")
    yield "money_whole", job("12.5", "0")
    yield "umlaut", job("LOC_1", "Zürich")
    yield "emoji", job("LOC_1", "\U0001f600" * 255)
    yield "looks_like_null", job("LOC_1", "N")
    yield "escapes", json.dumps(document | {"LOCATION": 'Zür"ich\\ \n\t\r'}).encode()
    yield "escaped_names", job('"REVENUE"', '"REVENU\\u0045"')
    yield "undeclared", with_extra('"X":1.50')
    yield "undeclared_text", with_extra('"X":"a\\"b\\\\ \\n\\u00e9"')
    yield "undeclared_object", with_extra('"X":{"a":{"a":[1,{"a":"x"}]},"b":null}')
    yield "undeclared_names", with_extra('"Ä ö\\"":1,"model_config":2,"":3')
    yield "undeclared_pretty", json.dumps(document | {"x": {"y": [1, 2]}}, indent="\t").encode()
    yield "undeclared_large", json.dumps(document | {f"x{i}": f"value {i}" for i in range(100)}).encode()
    yield "undeclared_long_number", with_extra('"X":123456789012345678901234567890.123')
    yield "number_as_text", job('"USERID":7', '"USERID":"7"')
    yield "money_as_text", job("12.5", '"12.50"')
    yield "time_with_offset", job("10:00:00", "10:00:00+0300")
    yield "time_utc", job("10:00:00", "10:00:00.123 UTC")


@pytest.mark.parametrize(("name", "value"), list(_spellings()), ids=lambda part: part if isinstance(part, str) else "")
def test_usual_spelling_of_a_record_has_a_line(name: str, value: bytes) -> None:
    assert _assert_the_same(JOBS, b"job-1", value)


@pytest.mark.parametrize("text", ["é", "日本", "job\u007f", "a|b", "N", "x"])
def test_key_of_any_letters_is_kept_byte_by_byte(text: str) -> None:
    assert _assert_the_same(JOBS, text.encode(), job("job-1", text))


def test_line_of_2019_is_as_postgres_reads_it() -> None:
    line = _maker(JOBS)(7, "2019-03-01 10:00:00.000+00:00", b"job-1", job(), r"\N")
    assert line == (
        "2019-03-01 10:00:00+00\t2019-03-01 11:00:00+00\tjob-1\tSUCCESS\tLOC_1\t12.5\tS\t7\t3\t1\t7\t"
        f"2019-03-01 10:00:00.000+00:00\tjob-1\t\\N\tf\t\\N\t{BATCH_ID}\n"
    )
