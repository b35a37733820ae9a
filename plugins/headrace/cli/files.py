"""Files that commands write."""

from collections.abc import Iterator
from pathlib import Path


def write_whole(path: Path, lines: Iterator[bytes]) -> int:
    """Write a file of mode 0600, completely or not at all; return its number of lines."""
    from headrace.exceptions import FileSourceError
    from headrace.private_files import replaced_file

    written = 0
    try:
        with replaced_file(path) as file:
            for line in lines:
                file.write(line)
                written += 1
        return written
    except OSError as error:
        raise FileSourceError(f"{path}: cannot be written: {error.strerror}; name another path") from error
