"""Records from a file: one JSON document per line, or the rows of a table; the offset is the line or row number."""

import hashlib
import os
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from headrace.exceptions import FileSourceError, SourceChanged
from headrace.optional import needs
from headrace.sources.base import Chunk, PartitionState, Range, SourcePosition, SourceState
from headrace.sources.file_lines import FIRST_LINE, UNREADABLE, FileLine, numbered_lines, open_regular, unreadable

CHUNK_LINES = 10_000
CHUNK_BYTES = 16 * 1024 * 1024


class FileFormat(Protocol):
    """How a file encodes records."""

    def end(self) -> int:
        """The offset after the last one; raises FileSourceError for a file that is not of this format."""

    def records(self, start: int) -> Iterator[FileLine]:
        """Yield the records from an offset on, in their order."""


class FileSource:
    """A file of records; partition 0, offsets from 1.

    .ndjson or .jsonl: one JSON document per line. .csv: a header, and commas. All three also with .gz. .parquet.
    types: the contract's fields with their columns' Postgres types; they decide which cells of a .csv are numbers.
    required: the columns that a table must have, each as a set of allowed names. Defaults to none.
    unpacked_bytes: what a compressed file of any size may unpack to. Defaults to 64 MiB.
    Its identity is the sha256 of its bytes: the same content is the same source, regardless of its modification time.
    """

    def __init__(
        self,
        path: Path,
        types: Mapping[str, str] | None = None,
        required: Collection[Sequence[str]] = (),
        *,
        unpacked_bytes: int | None = None,
    ) -> None:
        self.path = path
        self._format = _format(path, types or {}, required, unpacked_bytes)
        self._seen: os.stat_result | None = None
        self._state: SourceState | None = None
        self._digest = ""

    def describe(self) -> SourceState:
        """Hash the file and count its lines, once per change; raises FileSourceError if it cannot be read."""
        try:
            now = self.path.stat()
            if self._state is not None and not self._has_changed(now):
                return self._state
            self._seen = now
            with open_regular(self.path) as file:
                self._digest = hashlib.file_digest(file, "sha256").hexdigest()
            end = self._format.end()
        except UNREADABLE as error:
            raise unreadable(self.path, error) from error
        self._state = SourceState(self.path.name, self._digest, {0: PartitionState(FIRST_LINE, end, end)})
        return self._state

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The unchanged state: a file's identity is its content."""
        return state

    def topic_id(self) -> str:
        """The sha256 from `describe`; raises SourceChanged if the file was written to since."""
        self._check_unchanged()
        return self._digest

    def cluster_id(self) -> str | None:
        """None: a file belongs to no cluster."""
        return None

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the records of partition 0's range; blank lines are empty offsets. See `Source.read`."""
        start, end = ranges.get(0, Range(0, 0))[:2]
        if start >= end:
            return
        records: list[FileLine] = []
        size, position = 0, start
        try:
            for record in self._format.records(start):
                if record.offset >= end:
                    break
                records.append(record)
                size += len(record.value or b"")
                if len(records) >= CHUNK_LINES or size >= CHUNK_BYTES:
                    position = record.offset + 1
                    yield Chunk(0, records, position)
                    records, size = [], 0
        except UNREADABLE as error:
            raise unreadable(self.path, error) from error
        if position < end:
            yield Chunk(0, records, end)

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Return False: nothing comes after the end of a file."""
        time.sleep(seconds)
        return False

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Do nothing: files have no lag tools."""

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""

    def _check_unchanged(self) -> None:
        # checked before every commit: rows must not come from two versions of a file
        try:
            now = self.path.stat()
        except OSError as error:
            raise unreadable(self.path, error) from error
        if self._has_changed(now):
            raise SourceChanged(f"{self.path}: the file changed while it was read; load it again when it is complete")

    def _has_changed(self, now: os.stat_result) -> bool:
        return self._seen is not None and (now.st_mtime_ns, now.st_size, now.st_ino) != (
            self._seen.st_mtime_ns,
            self._seen.st_size,
            self._seen.st_ino,
        )


class JsonLines:
    """One JSON document per line."""

    def __init__(self, path: Path, unpacked_bytes: int | None) -> None:
        self._path = path
        self._unpacked_bytes = unpacked_bytes

    def end(self) -> int:
        """The offset after the last line; raises FileSourceError for a file without records."""
        end, is_empty = FIRST_LINE, True
        for number, line in self._lines():
            end, is_empty = number + 1, is_empty and not line.strip()
        if is_empty:
            raise FileSourceError(
                f"{self._path}: found an empty file, expected one JSON document per line; nothing was loaded"
            )
        return end

    def records(self, start: int) -> Iterator[FileLine]:
        """Yield the lines that are not blank."""
        for number, line in self._lines():
            if number >= start and line.strip():
                yield FileLine(number, line.rstrip(b"\r\n"))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        return numbered_lines(self._path, free_bytes=self._unpacked_bytes)


def _format(
    path: Path, types: Mapping[str, str], required: Collection[Sequence[str]], unpacked_bytes: int | None
) -> FileFormat:
    suffixes = path.suffixes
    is_packed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if is_packed else suffixes)[-1:]
    if suffix in ([".ndjson"], [".jsonl"]):
        return JsonLines(path, unpacked_bytes)
    if suffix == [".csv"]:
        with needs("files"):
            from headrace.sources.file_csv import CsvRows  # pandas takes 1.5 s to import

        return CsvRows(path, types, required, unpacked_bytes)
    if suffix == [".parquet"] and not is_packed:
        with needs("files"):
            from headrace.sources.file_parquet import ParquetRows

        return ParquetRows(path, types, required, unpacked_bytes)
    raise FileSourceError(
        f"{path}: found a file of another kind, expected .ndjson, .jsonl or .csv, also with .gz, or .parquet"
    )


def below(root: Path, name: str) -> Path:
    """A file below a root folder; raises FileSourceError for a name, or a link, that leads out of it."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise FileSourceError(f"{name}: leads out of {root}, expected a file below it")
    return path
