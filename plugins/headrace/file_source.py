"""Records from a file: one line is one record, its line number is its offset."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from headrace.exceptions import FileSourceError, SourceChanged
from headrace.source import Chunk, PartitionState, Range, SourceState

CHUNK_LINES = 10_000
LINE_BYTES_MAX = 64 * 1024 * 1024  # a longer line is a file of another kind
FIRST_LINE = 1
UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two: compressed, and cut off or damaged


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file; it has neither key, headers nor a time of its own."""

    offset: int
    value: bytes | None
    timestamp: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


class FileSource:
    """A file of one JSON document per line (.ndjson or .jsonl, also .gz); partition 0, offsets from 1.

    Its identity is the sha256 of its bytes: the same content is the same source, whenever it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: os.stat_result | None = None
        self._digest = ""
        suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
        if not suffixes or suffixes[-1] not in (".ndjson", ".jsonl"):
            raise FileSourceError(f"{path}: found a file of another kind, expected .ndjson or .jsonl, also .gz")

    def describe(self) -> SourceState:
        """Hash the file and count its lines; raises FileSourceError when it cannot be read."""
        try:
            self._seen = self.path.stat()
            with self.path.open("rb") as file:
                self._digest = hashlib.file_digest(file, "sha256").hexdigest()
            with self._open() as file:
                lines = sum(1 for _ in _lines(file, self.path))
        except UNREADABLE as error:
            raise _unreadable(self.path, error) from error
        end = FIRST_LINE + lines
        return SourceState(self.path.name, self._digest, {0: PartitionState(FIRST_LINE, end, end)})

    def check_position(self, partition: int, next_offset: int, position: str | None) -> None:
        """Nothing to add: a file is known by its contents."""

    def topic_id(self) -> str:
        """The sha256 that `describe` found; raises SourceChanged if the file was written to since."""
        self._check_unchanged()
        return self._digest

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the lines of partition 0's range; blank ones hold no record. See `Source.read`."""
        start, end = ranges.get(0, Range(0, 0))[:2]
        if start >= end:
            return
        records: list[Line] = []
        position = start
        try:
            with self._open() as file:
                for offset, line in enumerate(_lines(file, self.path), start=FIRST_LINE):
                    if offset < start:
                        continue
                    if offset >= end:
                        break
                    if line.strip():
                        records.append(Line(offset, line.rstrip(b"\r\n")))
                    if len(records) >= CHUNK_LINES:
                        position = offset + 1
                        yield Chunk(0, records, position)
                        records = []
        except UNREADABLE as error:
            raise _unreadable(self.path, error) from error
        if position < end:
            yield Chunk(0, records, end)

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Files have no lag tools."""

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _open(self) -> BinaryIO:
        if self.path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        return self.path.open("rb")

    def _check_unchanged(self) -> None:
        # asked before every commit: a file rewritten while it is read must not become half of each
        try:
            now = self.path.stat()
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if self._seen is not None and (now.st_mtime_ns, now.st_size, now.st_ino) != (
            self._seen.st_mtime_ns,
            self._seen.st_size,
            self._seen.st_ino,
        ):
            raise SourceChanged(f"{self.path}: the file changed while it was read; load it again when it is complete")


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = FIRST_LINE
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise FileSourceError(
                f"{path}: line {number} is longer than {LINE_BYTES_MAX} bytes, expected one JSON document per line"
            )
        number += 1
        yield line


def _unreadable(path: Path, error: Exception) -> FileSourceError:
    reason = getattr(error, "strerror", None) or str(error)
    return FileSourceError(f"{path}: cannot be read: {reason}; name a file that exists and that you may read")


def below(root: Path, name: str) -> Path:
    """A file below a root folder; raises FileSourceError for a name, or a link, that leads out of it."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise FileSourceError(f"{name}: leads out of {root}, expected a file below it")
    return path
