"""A file's lines, numbered from 1, also from a compressed file; limits on their length and on the unpacked size."""

import gzip
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from headrace.contracts.rejection import Rejection
from headrace.exceptions import FileSourceError
from headrace.record import Headers

FIRST_LINE = 1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Excel and PowerShell write one
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
READ_BYTES = 1024 * 1024
_first_line_end = re.compile(rb'(?:[^"\r\n]|"[^"]*")*(\r\n|\r|\n)').match
LINE_BYTES_MAX = 64 * 1024 * 1024  # a file with a longer line is of another format
# gzip compresses records to a tenth or a fiftieth; only zeros and the like compress to a thousandth.
EXPANSION_MAX = 200
EXPANSION_FREE_BYTES = 64 * 1024 * 1024  # allowed for a file of any size: HEADRACE_UNPACKED_BYTES_MAX
ROW_BYTES = (
    50  # each row counts as at least this: empty lines compress to a thousandth, and each costs as much as a record
)
UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two: a compressed file is cut off or damaged


@dataclass(frozen=True, slots=True)
class FileLine:
    """A record of a file; it has no key, no headers and no time.

    rejection: set if the line breaks the file's own format; value is then the unchanged line.
    """

    offset: int
    value: bytes | None
    rejection: Rejection | None = None
    timestamp: int | None = None
    key: bytes | None = None
    headers: Headers = ()


def numbered_lines(
    path: Path, *, may_end_in_cr: bool = False, free_bytes: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield every line with its number and its line end; a byte order mark before the first line is removed.

    may_end_in_cr: if the first line ends in a lone CR, as old spreadsheets write it, others may too. free_bytes: what a
    compressed file of any size may unpack to. Defaults to EXPANSION_FREE_BYTES.
    Raises FileSourceError for a line that is too long, for UTF-16 and for a compressed file that unpacks to too much;
    lets the errors of UNREADABLE pass.
    """
    is_packed = path.suffix == ".gz"
    limit = Expansion(path, free_bytes)
    left, rows = (limit.bytes, limit.rows) if is_packed else (sys.maxsize, sys.maxsize)
    with open_regular(path) as raw, _unpacked(raw, is_packed) as file:
        lines = _lines_of_any_end(file) if may_end_in_cr and _ends_in_cr(file) else _lines(file)
        for number, line in enumerate(lines, FIRST_LINE):
            if len(line) > LINE_BYTES_MAX:
                raise too_long(path, number)
            left -= len(line)
            if left < 0:
                raise limit.too_many_bytes()
            if number > rows:
                raise limit.too_many_rows()
            if number == FIRST_LINE:
                if line.startswith(UTF_16):
                    raise FileSourceError(f"{path}: found UTF-16, expected UTF-8; save it as UTF-8; nothing was loaded")
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line


def open_regular(path: Path) -> BufferedReader:
    """Open a file; raises FileSourceError for a device or a FIFO, and lets OSError pass."""
    check_regular(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # in case a FIFO has replaced it
    try:
        check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except FileSourceError:
        os.close(descriptor)
        raise


def check_regular(path: Path, mode: int) -> None:
    """Raise FileSourceError for a FIFO, a device, a socket or a folder."""
    kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
    if not stat.S_ISREG(mode):
        kind = next((name for is_one, name in kinds if is_one(mode)), "device")
        raise FileSourceError(f"{path}: cannot be read: found a {kind}, expected a regular file; copy it into one")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES_MAX + 1):
        yield line


def _ends_in_cr(file: BinaryIO) -> bool:
    head: bytes = file.peek(READ_BYTES)  # type: ignore[attr-defined]  # a buffer's worth: both kinds have it
    found = _first_line_end(head)
    return found is not None and found[1] == b"\r"


def _lines_of_any_end(file: BinaryIO) -> Iterator[bytes]:
    parts: list[bytes] = []  # of an incomplete line
    size = 0
    held = b""  # a CR that an LF may follow
    while size <= LINE_BYTES_MAX and (block := file.read(READ_BYTES)):
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        for line in block[: len(block) - len(held)].splitlines(keepends=True):
            parts.append(line)
            size += len(line)
            if line.endswith((b"\r", b"\n")):
                yield b"".join(parts)
                parts, size = [], 0
    if parts or held:
        yield b"".join(parts) + held


class Expansion:
    """The limits on the unpacked size of a compressed file.

    free_bytes: allowed for a file of any size. Defaults to EXPANSION_FREE_BYTES.
    """

    def __init__(self, path: Path, free_bytes: int | None = None) -> None:
        self._path = path
        self.free_bytes = EXPANSION_FREE_BYTES if free_bytes is None else free_bytes
        self.bytes = max(self.free_bytes, path.stat().st_size * EXPANSION_MAX)
        self.rows = self.bytes // ROW_BYTES

    def too_many_bytes(self) -> FileSourceError:
        """The error for a file that unpacks to too many bytes."""
        return self.error(f"unpacks to more than {self.bytes} bytes, {EXPANSION_MAX} times its size, expected records")

    def too_many_rows(self) -> FileSourceError:
        """The error for a file with too many rows for its size limit."""
        return self.error(
            f"holds more than {self.rows} rows: its limit is {self.bytes} bytes, {ROW_BYTES} for each row"
        )

    def error(self, found: str) -> FileSourceError:
        """An error with its remedies."""
        return FileSourceError(
            f"{self._path}: {found}; if the file is right, raise HEADRACE_UNPACKED_BYTES_MAX, or load it uncompressed"
        )


def too_long(path: Path, number: int) -> FileSourceError:
    """The error for a line that is longer than LINE_BYTES_MAX."""
    return FileSourceError(
        f"{path}: line {number} is longer than {LINE_BYTES_MAX} bytes, expected one record per line; correct the file"
    )


def unreadable(path: Path, error: Exception) -> FileSourceError:
    """The error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error)
    return FileSourceError(f"{path}: cannot be read: {reason}; name a file that exists and that you may read")


def _unpacked(file: BufferedReader, is_packed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if is_packed else file
