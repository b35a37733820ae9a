"""Lines of a file as keyed records."""

from pathlib import Path

import pytest

from headrace.exceptions import FileSourceError
from headrace.produce import read_keyed_lines


def keyed(tmp_path: Path, content: bytes, key_field: str | None = "ID") -> list[tuple[bytes | None, bytes]]:
    (tmp_path / "lines").write_bytes(content)
    return list(read_keyed_lines(tmp_path / "lines", key_field))


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'job-1|{"a":1}', (b"job-1", b'{"a":1}')),
        (b'job-1|{"a":"x|y"}|z', (b"job-1", b'{"a":"x|y"}|z')),
        (b"job-1|", (b"job-1", b"")),
        (b"|value", (b"", b"value")),
        (b"\xff|\xfe", (b"\xff", b"\xfe")),
        (b'{"ID":"x|1","b":2}', (b"x|1", b'{"ID":"x|1","b":2}')),
        (b'  {"ID":5}', (b"5", b'  {"ID":5}')),
        (b'{"ID":null}', (None, b'{"ID":null}')),
        (b'{"b":2}', (None, b'{"b":2}')),
        (b"{broken", (None, b"{broken")),
        (b'{"ID":' * 100_000, (None, b'{"ID":' * 100_000)),
    ],
)
def test_keyed_lines_give_key_and_value(line: bytes, record: tuple[bytes | None, bytes], tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n", b""):
        assert keyed(tmp_path, line + end) == [record]


def test_keyed_lines_of_a_dataset_without_a_key_have_none(tmp_path: Path) -> None:
    assert keyed(tmp_path, b'{"ID":1}\n', None) == [(None, b'{"ID":1}')]


@pytest.mark.parametrize("bad", [b"", b"no separator", b"   "])
def test_keyed_lines_with_one_that_is_neither_form_name_it(bad: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        FileSourceError, match=r"line 2: found .*, expected key\|value or a JSON object; nothing was sent"
    ):
        keyed(tmp_path, b"k|v\n" + bad + b"\nk|v\n")


def test_keyed_lines_of_an_empty_file_are_none(tmp_path: Path) -> None:
    assert keyed(tmp_path, b"") == []


def test_keyed_lines_of_an_absent_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match="cannot be read: No such file"):
        list(read_keyed_lines(tmp_path / "absent", None))
