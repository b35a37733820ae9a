"""What a payload costs is linear in its bytes, whatever it holds and whatever a contract asks of it."""

import gzip
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from operator import mul
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin
from uuid import UUID

import lz4.frame
import orjson
import pyarrow
import pyarrow.parquet
import pytest
import snappy
import zstandard
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c, encode_varint
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, create_model
from pydantic import field_validator as rule
from pydantic import model_validator as rule_of_all

from headrace import contract
from headrace.contract import Contract, Identifier, Integer
from headrace.contracts import rejection
from headrace.contracts.copy_cells import escaped
from headrace.contracts.copy_text import compile_lines
from headrace.escaping import visible
from headrace.exceptions import FileSourceError
from headrace.formats import KeyedJson
from headrace.monitor import dead_letter_text
from headrace.postgres import dead_letters
from headrace.publish.publishers import _fields, split_line
from headrace.sources.bounds import HEADERS_MAX, Bounds
from headrace.sources.file_csv import CsvRows, raw_rows
from headrace.sources.file_lines import numbered_lines
from headrace.sources.file_parquet import ParquetRows
from headrace.sources.kafka_batches import TolerantRecords, UnreadableBatch
from headrace.sources.kafka_records import Meter, MeteredRecords
from headrace.sources.redis import RedisSource
from headrace.times import TimeTexts
from headrace.verify import canonical
from headrace.verify.readers import StreamReader
from tests.unit.costs import SIZES, assert_linear

Make = Callable[[int], str]


def runs(unit: str, before: str = "", behind: str = "") -> Make:
    """Texts of one unit over and over."""
    return lambda size: before + unit * (size // len(unit)) + behind


def numbered(unit: str, before: str = "", behind: str = "") -> Make:
    """Texts of one unit over and over, each with a number of its own in it."""
    return lambda size: before + "".join(unit.format(i) for i in range(size // len(unit.format(10_000)))) + behind


# JSON values of about so many bytes
TEXTS = {
    "plain": runs("a", '"', '"'),
    "utf8": lambda size: runs("é😀", '"', '"')(size // 3),
    "escapes": runs(r"\u0041", '"', '"'),
    "surrogate pairs": runs(r"\ud83d\ude00", '"', '"'),
    "halves of pairs": runs(r"\ud83d", '"', '"'),
    "backslashes": runs(r"\\", '"', '"'),
    "quotes": runs(r"\"", '"', '"'),
    "escaped quotes": runs(r"\u0022", '"', '"'),
    "newlines": runs(r"\n", '"', '"'),
    "spaces": runs(" ", '"', '"'),
    "pipes": runs("|", '"', '"'),
    "digits": runs("1", '"', '"'),
    "zeros": runs("0", '"', '"'),
    "exponent": runs("1", '"1e', '"'),
    "fraction of a time": runs("1", '"2026-01-01T00:00:00.', 'Z"'),
    "almost a time": runs("1", '"2026-01-01T00:00:00.', 'x"'),
    "zone of a time": runs("A", '"2026-01-01T00:00:00Z[', ']"'),
    "zones": runs("+01:00", '"2026-01-01T00:00:00', '"'),
    "almost a clock": runs("1", '"00:00:00.', 'x"'),
    "braces": runs("{", '"', '"'),
    "cut off": runs("a", '"'),
}
LISTS = {
    "ones": runs("1,", "[", "1]"),
    "texts": runs('"",', "[", '""]'),
    "truths": runs("true,", "[", "true]"),
    "objects": runs('{"x":1},', "[", "{}]"),
}
DOCUMENTS = {
    "names": numbered('"n{}":1,', "{", '"n":1}'),
    "names of escapes": numbered(r'"\u0061{}":1,', "{", '"n":1}'),
    "names that collide as numbers": lambda size: numbered('"{}":1,', "{", '"n":1}')(size),
    "one name": runs('"n":1,', "{", '"n":1}'),
    "last name twice": numbered('"n{}":1,', "{", '"n0":1}'),
    "long name": runs("a", '{"', '":1}'),
    "long name of escapes": runs(r"\u0061", '{"', '":1}'),
    "long names": runs('"%s":1,' % ("a" * 5_000), "{", '"n":1}'),
    "objects in objects": lambda size: '{"a":' * 190 + runs(r'"\u0041",', "[", "1]")(size) + "}" * 190,
    "numbers in arrays": lambda size: "[" * 190 + runs("1,", "[", r'"\u0041"]')(size) + "]" * 190,
    "nested": runs("[" * 100 + "]" * 100 + ",", "[", "1]"),
    "never closed": runs("["),
    "never opened": runs("]"),
    "digits": runs("1"),
    "fraction": runs("1", "0."),
    "exponent of zeros": runs("0", "1e", "1"),
    "long numbers": runs("1" * 3_999 + ",", "[", "1]"),
    "longest numbers": runs("1" * 4_300 + ",", "[", "1]"),
    "long fractions": runs("0." + "1" * 3_900 + ",", "[", "1]"),
    "long texts like numbers": runs('"%s",' % ("e" * 3_990), "[", "1]"),
    "exponents": runs("1e999,", "[", "1]"),
    "small exponents": runs("1e-9,", "[", "1]"),
    "blanks": runs(" ", "[", "]"),
    "blanks and lines": runs("1 \t\n,", "[", "1]"),
}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = 0
    name: str = ""


def same(value: Any) -> Any:
    return value


SCALARS: dict[str, Any] = {
    **{name: getattr(contract, name) for name in contract.__all__ if get_origin(getattr(contract, name)) is Annotated},
    "text": str, "pattern": Annotated[str, Field(pattern="^(a|b)*c$")], "boolean": bool, "uuid": UUID,
    "bytes": bytes, "Literal": Literal["red", "blue"], "Enum": Colour, "numbers": Literal[1, 2],
    "nullable": Integer | None, "after": Annotated[str, AfterValidator(same)],
    "before": Annotated[str, BeforeValidator(same)],
}  # fmt: skip
ARRAYS: dict[str, Any] = {
    "texts": list[str], "decimals": list[Decimal], "choices": list[Literal["a", "b"]], "models": list[Point],
    "nullable": list[int | None],
}  # fmt: skip
OBJECTS: dict[str, Any] = {
    "model": Point, "models": dict[str, Point], "any": Any, "list": list[Any],
}  # fmt: skip


def contract_of(kind: Any, **options: Any) -> Contract:
    """A contract of one field, v, with a limit that no test reaches."""
    return Contract(create_model("Fields", v=(kind, ...)), max_value_bytes=2 * SIZES[-1], **options)


def check(contract: Contract, make: Callable[[int], str]) -> None:
    """Both ways of a record, as a whole value."""

    @cache
    def payload(size: int) -> bytes:
        return make(size).encode()

    assert_linear(payload, partial(contract.decode, b"1"))
    if (bind := compile_lines(contract)) is not None:
        make_line = bind(1, 0, UUID(int=0))
        assert_linear(payload, lambda value: make_line(0, "", b"1", value, ""))


def field_of(make: Make, size: int) -> str:
    return f'{{"v":{make(size)}}}'


def test_a_quadratic_cost_is_found() -> None:
    """What once searched for a name behind an escape, in a payload full of escapes: 3.9 s for 40 kB."""
    search = re.compile(r'\\u[^"\\]*(?:\\.[^"\\]*)*"\s*:').search
    with pytest.raises(AssertionError, match=r"ms for \(10000, 100000\) bytes, expected at most"):
        assert_linear(lambda size: TEXTS["escapes"](size // 10), search)


def test_a_cost_that_is_high_for_every_byte_is_found() -> None:
    with pytest.raises(AssertionError, match=r"ms for \(10000,\) bytes, expected at most"):
        assert_linear(lambda size: " " * size, lambda text: [len(text.strip()) for _ in range(len(text))])


# contracts: what a record holds beside the declared fields, and what each kind of field makes of it


@pytest.mark.security("P2")
@pytest.mark.parametrize("name", [*TEXTS, *LISTS, *DOCUMENTS])
def test_cost_of_an_undeclared_field_is_linear(name: str) -> None:
    make = (TEXTS | LISTS | DOCUMENTS)[name]
    check(contract_of(int), lambda size: f'{{"v":1,"w":{make(size)}}}')


@pytest.mark.parametrize("kind", SCALARS)
def test_cost_of_a_field_is_linear(kind: str) -> None:
    contract, strict = contract_of(SCALARS[kind]), contract_of(SCALARS[kind], strict=True)
    for name in (
        *("plain", "escapes", "halves of pairs", "quotes", "digits", "exponent", "fraction of a time", "almost a time"),
        "zone of a time",
    ):
        check(strict if name == "digits" else contract, partial(field_of, TEXTS[name]))


@pytest.mark.parametrize("kind", ARRAYS)
def test_cost_of_an_array_is_linear(kind: str) -> None:
    for name in ("ones", "texts", "objects"):
        check(contract_of(ARRAYS[kind], strict=name == "texts"), partial(field_of, LISTS[name]))


@pytest.mark.parametrize("kind", OBJECTS)
def test_cost_of_a_nested_document_is_linear(kind: str) -> None:
    for name in ("names", "objects in objects", "long texts like numbers"):
        check(contract_of(OBJECTS[kind]), partial(field_of, DOCUMENTS[name]))


class Ruled(BaseModel):
    """Aliases, and rules of a contract's own over one field and over several."""

    v: str = Field(validation_alias=AliasChoices("V", "value"), default="")
    w: int = Field(alias="W", default=0)

    @rule("w")
    @classmethod
    def check_w(cls, value: int) -> int:
        if value:
            raise ValueError("expected 0")
        return value

    @rule_of_all(mode="before")
    @classmethod
    def unwrap(cls, document: Any) -> Any:
        return document.get("envelope", document)

    @rule_of_all(mode="after")
    def check_both(self) -> "Ruled":
        if len(self.v) > 2 * self.w:
            raise IndexError(self.v)
        return self


@pytest.mark.parametrize("document", ['{{"V":{}}}', '{{"value":{}}}', '{{"W":{}}}', '{{"envelope":{{"V":{}}}}}'])
def test_cost_of_aliases_and_rules_is_linear(document: str) -> None:
    contract = Contract(Ruled, max_value_bytes=2 * SIZES[-1])
    for name in ("plain", "escapes", "digits"):
        check(contract, lambda size, name=name: document.format(TEXTS[name](size)))  # type: ignore[misc]
    check(contract, lambda size: document.format(DOCUMENTS["names"](size)))


def test_cost_of_what_is_no_document_is_linear() -> None:
    contract = contract_of(int)
    for make in (
        *(DOCUMENTS[name] for name in ("nested", "never closed", "digits")),
        *map(runs, ' |\\"\0\ufeff{}[],:1-e'),
        runs(" ", behind="{"),
    ):
        check(contract, make)
    assert_linear(lambda size: b"a" * size + b"\xff", partial(contract.decode, None))
    assert_linear(lambda size: b"a" * 3 * SIZES[-1], partial(contract.decode, None))  # too large


@pytest.mark.parametrize("kind", [Identifier, Integer, UUID])
def test_cost_of_a_key_is_linear(kind: Any) -> None:
    contract = contract_of(kind, key="v")
    value = f'{{"v":{"1" if kind is Integer else f"{chr(34)}{UUID(int=1)}{chr(34)}"}}}'.encode()
    for unit in ("1", "0", "-", "\\", " ", "\xff"):
        key = partial(mul, unit.encode("latin-1"))
        assert_linear(key, lambda key: contract.decode(key, None))
        assert_linear(key, lambda key: contract.decode(key, value))


def test_cost_of_keyed_json_is_linear() -> None:
    contract = contract_of(Identifier, key="v", format=KeyedJson())
    makes = [
        runs("|"), runs("|", behind='{"v":"1"}'), runs("1", behind='|{"v":"1"}'), runs("1|"), runs(" ", behind="|{}"),
        runs(" ", behind='{"v":"1"}'), runs("{|", behind="{"), runs("\\|"), runs('"', behind="|"), runs("1"),
        runs("|", '{"v":"1","w":"', '"}'), runs(" ", '1|{"v":"1"', "}"), runs(r"\u007c", '1|{"v":"', '"}'),
    ]  # fmt: skip
    for make in makes:
        check(contract, make)
        assert_linear(lambda size, make=make: make(size).encode(), lambda line: split_line(line, "v"))  # type: ignore[misc]


# topics: what batches unpack to, by both of their readers


def varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def record(
    number: int, headers: Sequence[tuple[bytes, bytes]] = (), count: int | None = None, value: bytes = b""
) -> bytes:
    """A record of a batch (https://kafka.apache.org/documentation/#record); count: of headers, as it states it."""
    body = (
        b"\0\0" + varint(number) + b"\1" + varint(len(value)) + value + varint(len(headers) if count is None else count)
    )
    body += b"".join(varint(len(name)) + name + varint(len(value)) + value for name, value in headers)
    return varint(len(body)) + body


def batch(codec: int, records: bytes, count: int) -> bytes:
    """A batch that states so many records; the bytes of them are as they are given."""
    header = struct.pack(">hiqqqhii", codec, count - 1, 0, 0, -1, -1, -1, count)
    crc = calc_crc32c(memoryview(header + records))
    return struct.pack(">qiibI", 0, len(header) + len(records) + 9, 0, 2, crc) + header + records


def tiny_records(size: int) -> tuple[bytes, int]:
    count = size // 9
    return b"".join(map(record, range(count))), count


def records(size: int) -> tuple[bytes, int]:
    return b"".join(record(i, value=b"v" * 89) for i in range(size // 100)), size // 100


def many_headers(size: int) -> tuple[bytes, int]:
    return record(0, [(b"", b"")] * min(size // 2, HEADERS_MAX)), 1


def in_pieces(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Each byte packed by itself."""
    each = [pack(bytes([byte])) for byte in range(256)]
    return lambda records: b"".join(each[byte] for byte in records[: len(records) // 20])


def xerial(records: bytes) -> bytes:
    """Blocks of one byte, as xerial's format has them behind their sizes."""
    blocks = [snappy.compress(bytes([byte])) for byte in range(256)]
    framed = [struct.pack(">i", len(block)) + block for block in blocks]
    return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(framed[byte] for byte in records[: len(records) // 8])


def frame(byte: bytes) -> bytes:
    return bytes(lz4.frame.compress(byte, store_size=False))


CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, partial(gzip.compress, mtime=0)),
    "gzip in members": (1, in_pieces(partial(gzip.compress, mtime=0))),
    "snappy": (2, snappy.compress),
    "snappy in blocks": (2, xerial),
    "lz4": (3, lz4.frame.compress),
    "lz4 in frames": (3, in_pieces(frame)),
    "zstd": (4, zstandard.compress),
    "zstd in frames": (4, in_pieces(zstandard.compress)),
}


def read_batches(data: bytes) -> None:
    for records in (
        MeteredRecords(Meter(2**40), 0, TopicPartition("topic", 0), MemoryRecords(data)),
        TolerantRecords(Bounds(), 0, TopicPartition("topic", 0), MemoryRecords(data)),
    ):
        with suppress(UnreadableBatch):
            while records:
                records.take(1_000)


@pytest.mark.security("P3")
@pytest.mark.parametrize("name", CODECS)
def test_cost_of_a_batch_is_linear(name: str) -> None:
    codec, pack = CODECS[name]

    def packed(fill: Callable[[int], tuple[bytes, int]], size: int) -> bytes:
        records, count = fill(size)
        return batch(codec, pack(records), count)

    assert_linear(partial(packed, records), read_batches)
    if name == "none":
        assert_linear(partial(packed, tiny_records), read_batches, byte_cost_max=150)  # two readers, 9 bytes a record
        assert_linear(partial(packed, many_headers), read_batches)


@pytest.mark.parametrize(
    "make",
    [
        lambda size: batch(0, b"\xff" * size, 1),
        lambda size: batch(0, bytes(size), 2**31 - 1),
        lambda size: batch(0, record(0, count=2**30) + bytes(size), 1),
        lambda size: batch(0, b"", 0) * (size // 61),
        lambda size: batch(0, record(0), 1) * (size // 68),
        lambda size: batch(
            0, b"".join(record(i, [(b"\xff", b"")], value=b"v" * 86) for i in range(size // 100)), size // 100
        ),
    ],
    ids=["no number", "records of nothing", "headers of nothing", "empty", "of one record", "names that are not UTF-8"],
)
def test_cost_of_a_batch_that_lies_is_linear(make: Callable[[int], bytes]) -> None:
    assert_linear(make, read_batches, byte_cost_max=150)


# streams: entries that become documents, and their second reader


@pytest.mark.parametrize("name", ["controls", "fields"])
def test_cost_of_an_entry_of_a_stream_is_linear(name: str) -> None:
    source, reader = RedisSource.__new__(RedisSource), StreamReader.__new__(StreamReader)

    def fields(size: int) -> list[bytes]:
        if name == "fields":
            return [b"%d" % i for i in range(size // 6)] * 2
        return [b"n", b"\1" * size]

    assert_linear(fields, lambda fields: source._record(0, b"1-1", fields))
    assert_linear(fields, reader._value)


def test_cost_of_sending_a_line_to_a_stream_is_linear() -> None:
    for name in ("names", "one name", "long name", "nested", "never closed"):
        assert_linear(lambda size, name=name: DOCUMENTS[name](size).encode(), _fields)  # type: ignore[misc]


# dead letters: what is said of a record, and how it is shown


@pytest.mark.parametrize("unit", [" a", "\0", "\ud800"])
def test_cost_of_a_dead_letters_text_is_linear(unit: str) -> None:
    for run in (
        rejection.storable,
        rejection.shown,
        visible,
        escaped,
        lambda text: rejection.json_path(("a", text, 0)),
        lambda text: rejection.of_exception(ValueError(text)),
        lambda text: list(dead_letter_text._body("value", text.encode("utf-8", "surrogatepass"))),
        lambda text: dead_letter_text._in_a_line(text.encode("utf-8", "surrogatepass")),
        lambda text: dead_letters.headers_json([(text, text.encode("utf-8", "surrogatepass"))]),
        lambda text: canonical.digest([text, [text]]),
    ):
        assert_linear(runs(unit), run)


@pytest.mark.parametrize("header", [("", b""), (b"\xff", b"\xff")])
def test_cost_of_many_headers_is_linear(header: tuple[str | bytes, bytes | None]) -> None:
    """As many as are kept. In a record each takes the bytes of its name and value, and one for the length of either."""
    header_bytes = 2 + sum(map(len, filter(None, header)))
    assert_linear(lambda size: [header] * min(size // header_bytes, HEADERS_MAX), dead_letters.headers_json)
    stored = orjson.loads(dead_letters.headers_json([header]) or b"")
    assert_linear(lambda size: stored * (size // 30), dead_letters.headers_of)


@pytest.mark.parametrize("name", ["names", "one name", "nested", "longest numbers", "exponents", "long fractions"])
def test_cost_of_a_comparison_with_the_source_is_linear(name: str) -> None:
    assert_linear(DOCUMENTS[name], lambda text: canonical.digest([canonical.json_value(text)]))


def test_cost_of_record_times_that_collide_is_linear() -> None:
    """A producer chooses them, and Python's dictionaries place whole numbers by their lowest bits at first."""

    def remember(timestamps: list[int]) -> None:
        texts = TimeTexts()
        for timestamp_ms in timestamps:
            texts[timestamp_ms]

    assert_linear(lambda size: [i << 43 for i in range(size // 8)], remember)


# files


@pytest.mark.parametrize("name", ["lines.ndjson", "lines.ndjson.gz", "lines.csv"])
def test_cost_of_a_files_lines_is_linear(name: str, tmp_path: Path) -> None:
    for unit in (b"\n", b'"\r', b"a"):

        def file(size: int, unit: bytes = unit) -> Path:
            path = tmp_path / name
            piece = gzip.compress(unit, mtime=0) if path.suffix == ".gz" else unit  # many members
            path.write_bytes(piece * (size // len(piece)))
            return path

        assert_linear(file, lambda path: sum(1 for _ in numbered_lines(path, may_end_in_cr=path.suffix == ".csv")))


ROWS = {
    "opens in every line": b'a","\n', "quotes": b'"\n', "of quotes": b'"', "of commas": b",", "of fields": b'"",',
    "of open fields": b'","', "of crs": b"\r",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_cost_of_finding_a_csv_files_rows_is_linear(name: str) -> None:
    unit = ROWS[name]

    def lines(size: int) -> list[tuple[int, bytes]]:
        repeated = unit * (size // len(unit))
        return list(enumerate(repeated.splitlines(keepends=True) if b"\n" in unit else [b'"' + repeated, repeated], 1))

    assert_linear(lines, lambda lines: list(raw_rows(iter(lines))))


HEADER = numbered(",n{}", "a")
TABLES: dict[str, Callable[[int], str]] = {
    "rows": runs("1,{}, \n" * 4, "a,b,c\n"),
    "one wide, many short": lambda size: (
        HEADER(min(size // 3, 40_000)) + runs(",1", "\n1")(min(size // 3, 10_000)) + runs("\n1", behind="\n")(size // 8)
    ),
    "columns": numbered(",n{}", "a", "\n"),
    "columns twice": lambda size: HEADER(min(size, 40_000)) + ",a\n",
}


@pytest.mark.security("P4")
@pytest.mark.parametrize("name", TABLES)
def test_cost_of_a_csv_file_is_linear(name: str, tmp_path: Path) -> None:
    def file(size: int) -> CsvRows:
        path = tmp_path / "table.csv"
        path.write_text(TABLES[name](size))
        return CsvRows(path, {"a": "bigint", "b": "jsonb"}, [["a"]])

    def read(rows: CsvRows) -> None:
        try:
            assert sum(1 for _ in rows.records(1)) or name == "columns"
        except FileSourceError:
            assert name.startswith("columns")

    # a byte may be a column, or a row, and each is 2 to 20 us of pandas
    assert_linear(file, read, byte_cost_max=500)


def test_cost_of_a_parquet_files_columns_is_linear(tmp_path: Path) -> None:
    def file(size: int) -> ParquetRows:
        path = tmp_path / "table.parquet"
        names = [f"n{i}" for i in range(size // 500)]
        pyarrow.parquet.write_table(pyarrow.table([[1]] * len(names), names=names), path)
        return ParquetRows(path, {"n0": "bigint"}, [["n0"]])

    assert_linear(file, lambda rows: rows.end())
