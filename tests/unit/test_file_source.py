"""Records from files."""

import gzip
import os
import socket
import tracemalloc
from contextlib import chdir
from pathlib import Path

import pytest

from headrace.exceptions import FileSourceError, SourceChanged
from headrace.sources import file as file_source
from headrace.sources import file_lines
from headrace.sources.base import PartitionState, Range, SourceState
from headrace.sources.file import FileSource
from headrace.verify.readers import FileReader


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(source: FileSource, start: int = 1, end: int | None = None) -> list[tuple[int, bytes | None]]:
    end = source.describe().partitions[0].end_offset if end is None else end
    chunks = list(source.read({0: Range(start, end)}))
    assert not chunks or chunks[-1].next_offset == end
    return [(record.offset, record.value) for chunk in chunks for record in chunk.records]


NAMES = ["users.ndjson", "users.jsonl", "users.ndjson.gz", "2026-01.users.ndjson"]


@pytest.mark.parametrize("name", NAMES)
def test_file_with_blank_lines_keeps_line_numbers(name: str, tmp_path: Path) -> None:
    source = FileSource(written(tmp_path / name, b'\n{"a":1}\n  \t\n\r\n{"a":2}\r\n\n'))
    assert source.describe().partitions == {0: PartitionState(1, 7, 7)}
    assert lines(source) == [(2, b'{"a":1}'), (5, b'{"a":2}')]


@pytest.mark.parametrize("name", NAMES)
def test_file_without_a_trailing_newline_has_its_last_line(name: str, tmp_path: Path) -> None:
    source = FileSource(written(tmp_path / name, b'{"a":1}\n{"a":2}'))
    assert lines(source) == [(1, b'{"a":1}'), (2, b'{"a":2}')]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["users.ndjson", "users.ndjson.gz", "users.csv", "users.csv.gz"])
def test_file_without_a_record_is_one_error(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match=rf"{name}: found an empty file, expected .*; nothing was loaded"):
        FileSource(written(tmp_path / name, content), {"USERID": "bigint"}, [["USERID"]]).describe()


@pytest.mark.parametrize("name", NAMES)
def test_file_with_a_byte_order_mark_has_its_first_line(name: str, tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a":1}\n{"a":2}\n\xef\xbb\xbf{"a":3}\n'
    source = FileSource(written(tmp_path / name, content))
    found = [(1, b'{"a":1}'), (2, b'{"a":2}'), (3, b'\xef\xbb\xbf{"a":3}')]  # inside a file it is no mark
    assert lines(source) == found
    path = written(tmp_path / name, content)
    assert [(offset, value) for offset, _, value, _, _ in FileReader(path).visible_records(0, 1, 4)] == found


@pytest.mark.parametrize("name", ["users.ndjson", "users.csv"])
def test_file_in_utf_16_is_one_error(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, "USERID\n1\n".encode("utf-16"))
    with pytest.raises(FileSourceError, match="found UTF-16, expected UTF-8; save it as UTF-8; nothing was loaded"):
        FileSource(path).describe()


@pytest.mark.parametrize("name", ["t.ndjson", "t.ndjson.gz", "t.csv", "t.parquet"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "socket", "folder"])
def test_file_that_is_no_regular_one_is_refused_and_not_waited_for(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with socket.socket(socket.AF_UNIX) as server:
        match kind:
            case "FIFO":
                os.mkfifo(path)
            case "device":
                path.symlink_to("/dev/zero")
            case "socket":
                with chdir(tmp_path):  # the names of sockets are short
                    server.bind(name)
            case _:
                path.mkdir()
        message = rf"{name}: cannot be read: found a {kind}, expected a regular file; copy it into one"
        with pytest.raises(FileSourceError, match=message):
            FileSource(path).describe()
        with pytest.raises(FileSourceError, match=message):
            list(FileReader(path).visible_records(0, 1, 2))


def test_file_that_became_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path / "t.ndjson", b"1\n"))
    source.describe()
    (tmp_path / "t.ndjson").unlink()
    os.mkfifo(tmp_path / "t.ndjson")
    with pytest.raises(FileSourceError, match="found a FIFO"):
        list(source.read({0: Range(1, 2)}))


def test_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "users.ndjson", b"1\n")
    source = FileSource(path)
    first = source.describe()
    with monkeypatch.context() as patched:
        patched.setattr(file_source, "open_regular", None)  # to read it would fail
        assert source.describe() == first
    written(path, b"1\n2\n")
    assert source.describe().topic_id != first.topic_id


def test_file_identity_is_its_content(tmp_path: Path) -> None:
    first, copy, other = (
        FileSource(written(tmp_path / name, content)).describe()
        for name, content in (("a.ndjson", b"{}\n"), ("b.ndjson", b"{}\n"), ("c.ndjson", b"{} \n"))
    )
    assert first.topic_id == copy.topic_id != other.topic_id
    assert first == SourceState("a.ndjson", first.topic_id, {0: PartitionState(1, 2, 2)})


@pytest.mark.parametrize("start", [1, 2, 3, 4, 5])
def test_file_resumed_at_an_offset_gives_the_rest(start: int, tmp_path: Path) -> None:
    source = FileSource(written(tmp_path / "users.ndjson.gz", b"1\n2\n\n4\n"))
    assert lines(source, start) == [item for item in [(1, b"1"), (2, b"2"), (4, b"4")] if item[0] >= start]


def test_file_read_up_to_an_offset_stops_there(tmp_path: Path) -> None:
    source = FileSource(written(tmp_path / "users.ndjson", b"1\n2\n3\n4\n"))
    assert lines(source, 2, 4) == [(2, b"2"), (3, b"3")]
    assert list(source.read({})) == list(source.read({0: Range(2, 2)})) == []


def test_file_longer_than_a_chunk_comes_in_chunks_that_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "CHUNK_LINES", 10)
    source = FileSource(written(tmp_path / "users.ndjson", b"".join(b"%d\n" % n for n in range(1, 36))))
    chunks = list(source.read({0: Range(1, 36)}))
    assert [(len(chunk.records), chunk.next_offset) for chunk in chunks] == [(10, 11), (10, 21), (10, 31), (5, 36)]


def test_file_cut_off_in_its_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson.gz"
    path.write_bytes(gzip.compress(os.urandom(5_000).hex().encode())[:-20])
    with pytest.raises(FileSourceError, match="cannot be read: Compressed file ended before"):
        FileSource(path).describe()


def test_file_damaged_in_its_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson.gz"
    packed = bytearray(gzip.compress(os.urandom(5_000).hex().encode()))
    packed[100:200] = bytes(100)
    path.write_bytes(packed)
    with pytest.raises(FileSourceError, match=r"cannot be read: .+; name a file"):
        FileSource(path).describe()


def test_file_that_only_claims_to_be_compressed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users.ndjson.gz").write_bytes(b'{"a":1}\n')
    with pytest.raises(FileSourceError, match="Not a gzipped file"):
        FileSource(tmp_path / "users.ndjson.gz").describe()


@pytest.mark.parametrize("name", ["absent.ndjson", "absent.ndjson.gz", "absent.csv", "absent.parquet"])
def test_file_that_cannot_be_opened_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match=f"{name}: cannot be read: No such file"):
        FileSource(tmp_path / name).describe()


@pytest.mark.parametrize("name", ["users.txt", "users", "users.ndjson.zip", "users.gz", ".ndjson", "users.parquet.gz"])
def test_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match=r"expected \.ndjson, \.jsonl or \.csv, also with \.gz, or \.parquet"):
        FileSource(tmp_path / name)


def test_file_with_an_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lines, "LINE_BYTES_MAX", 100)
    source = FileSource(written(tmp_path / "users.ndjson", b"1\n" + b"x" * 101 + b"\n"))
    with pytest.raises(FileSourceError, match="line 2 is longer than 100 bytes"):
        source.describe()


def test_file_written_to_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "users.ndjson", b"1\n2\n")
    source = FileSource(path)
    digest = source.describe().topic_id
    assert source.topic_id() == digest
    with path.open("ab") as file:
        file.write(b"3\n")
    with pytest.raises(SourceChanged, match="the file changed while it was read"):
        source.topic_id()


def test_file_replaced_by_another_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "users.ndjson", b"1\n2\n")
    source = FileSource(path)
    source.describe()
    written(tmp_path / "new", b"3\n4\n").replace(path)
    with pytest.raises(SourceChanged, match="the file changed while it was read"):
        source.topic_id()


def test_file_removed_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "users.ndjson", b"1\n2\n")
    source = FileSource(path)
    source.describe()
    path.unlink()
    with pytest.raises(FileSourceError, match="cannot be read: No such file"):
        source.topic_id()


def test_file_that_unpacks_to_far_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lines, "EXPANSION_FREE_BYTES", 1_000_000)
    bomb = written(tmp_path / "bomb.ndjson.gz", (b" " * 999 + b"\n") * 20_000)
    message = rf"bomb.ndjson.gz: unpacks to more than {bomb.stat().st_size * 200} bytes, 200 times its size, expected"
    with pytest.raises(FileSourceError, match=message):
        FileSource(bomb).describe()
    assert FileSource(written(tmp_path / "zeros.ndjson.gz", b"x" * 999_999)).describe().partitions[0].end_offset == 2
    assert FileSource(written(tmp_path / "plain.ndjson", (b"x" * 999 + b"\n") * 2_000)).describe()


def test_file_of_long_lines_comes_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "CHUNK_BYTES", 1_000)
    source = FileSource(written(tmp_path / "users.ndjson", (b"x" * 600 + b"\n") * 5))
    assert [len(chunk.records) for chunk in source.read({0: Range(1, 6)})] == [2, 2, 1]


def test_bomb_of_one_line_of_a_quarter_gigabyte_is_refused_within_bounded_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.ndjson.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(256):
            file.write(bytes(1024 * 1024))
    assert bomb.stat().st_size < 2 * 1024 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(FileSourceError, match="line 1 is longer than 67108864 bytes, expected one record per line"):
            FileSource(bomb).describe()
        assert tracemalloc.get_traced_memory()[1] < 3 * file_lines.LINE_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_packed_file_is_unpacked_once(tmp_path: Path) -> None:
    nested = gzip.compress(b'{"a":1}\n')
    (tmp_path / "nested.ndjson.gz").write_bytes(gzip.compress(nested))
    found = b"".join(value or b"" for _, value in lines(FileSource(tmp_path / "nested.ndjson.gz")))
    assert found.startswith(nested[:2])


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "out", "folder/secret", "out/../out"])
def test_name_or_link_that_leads_out_of_the_data_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(FileSourceError, match=r"leads out of .*, expected a file below it"):
        file_source.below(root, name)


def test_name_or_link_that_stays_below_the_data_is_taken(tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "users.ndjson")
    for name in ("users.ndjson", "link", "a/../users.ndjson"):
        assert file_source.below(tmp_path, name) == tmp_path.resolve() / "users.ndjson"
