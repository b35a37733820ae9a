"""A file's lines, numbered from 1, also packed: bounded in length, and in how much may come out of how little."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from headrace.contracts.rejection import Rejection
from headrace.exceptions import FileSourceError

FIRST_LINE = 1
LINE_BYTES_MAX = 64 * 1024 * 1024  # a longer line is a file of another kind
# What gzip makes of records is a tenth or a fiftieth of them; a thousandth is what it can make of zeros.
EXPANSION_MAX = 200
EXPANSION_FREE_BYTES = 64 * 1024 * 1024  # so much may come out of any file, however small
UNREADABLE = (OSError, EOFError, zlib.error)  # the latter two: compressed, and cut off or damaged


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a file; it has neither key, headers nor a time of its own.

    rejection: why it is none, where the file's own format is broken; value is then the line as it stands there.
    """

    offset: int
    value: bytes | None
    rejection: Rejection | None = None
    timestamp: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield every line with its number and its line end.

    Raises FileSourceError for a line that is too long and for a packed file that unpacks to far too much, and
    UNREADABLE as it comes.
    """
    is_packed = path.suffix == ".gz"
    left = expansion_limit(path.stat().st_size)
    with _opened(path, is_packed) as file:
        number = FIRST_LINE
        while line := file.readline(LINE_BYTES_MAX + 1):
            if len(line) > LINE_BYTES_MAX:
                raise FileSourceError(
                    f"{path}: line {number} is longer than {LINE_BYTES_MAX} bytes, expected one record per line"
                )
            left -= len(line)
            if is_packed and left < 0:
                raise too_much(path)
            yield number, line
            number += 1


def expansion_limit(size: int) -> int:
    """How many bytes may come out of a packed file of this size."""
    return max(EXPANSION_FREE_BYTES, size * EXPANSION_MAX)


def too_much(path: Path) -> FileSourceError:
    """The error for a packed file that holds more than it should."""
    return FileSourceError(
        f"{path}: unpacks to more than {expansion_limit(path.stat().st_size)} bytes, {EXPANSION_MAX} times its size, "
        "expected records; if it is right, unpack it and load that"
    )


def unreadable(path: Path, error: Exception) -> FileSourceError:
    """The error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error)
    return FileSourceError(f"{path}: cannot be read: {reason}; name a file that exists and that you may read")


def _opened(path: Path, is_packed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if is_packed else path.open("rb")
