"""Files and folders that other users of the machine can neither read nor replace, also not by a link.

Modes are set explicitly: the caller's umask can only narrow them.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from headrace.exceptions import SettingError

FOLDER_MODE, FILE_MODE = 0o700, 0o600
UMASK = 0o077  # of processes that write below HEADRACE_HOME
OTHERS = 0o077


def check_home(home: Path) -> None:
    """Refuse a HEADRACE_HOME that another user owns or can replace; one that does not exist yet is allowed.

    Its services.json decides where passwords are sent. root is trusted, because it can read everything anyway.
    """
    home = home.absolute()
    for path in (home, *home.parents):
        if path.is_symlink():
            _check_owner(home, path, path.lstat().st_uid, "is a link of")
    home = home.resolve()
    if home.exists() and not home.is_dir():
        return  # /dev/null: a deployment without a home reads and writes nothing there
    with suppress(OSError):  # missing or not readable: its first use reports that
        for path in reversed(home.parents):
            _check_writers(home, path, may_be_sticky=True)
        _check_writers(home, home, may_be_sticky=False)
        _check_owner(home, home, home.stat().st_uid, "belongs to")


def make_folder(path: Path) -> None:
    """Make a folder of mode 0700, and missing parents of mode 0755. An existing folder is not changed."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o755, exist_ok=True)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def close_to_others(folder: Path) -> None:
    """Remove all rights of other users from a folder and its contents, if the folder grants any; links are skipped.

    The folder itself comes last, so that after a kill the next call repeats the work.
    """
    if not stat.S_IMODE(folder.stat().st_mode) & OTHERS:
        return
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            with suppress(FileNotFoundError):  # a running server may remove files meanwhile
                found = path.lstat()
                if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode):
                    path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
    folder.chmod(FOLDER_MODE)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file of mode 0600 to write; at the end it replaces `path`, complete and on disk, or not at all.

    Raises OSError, also if `path` is not a regular file: a link is neither followed nor replaced.
    """
    with suppress(FileNotFoundError):
        _check_regular(path.lstat().st_mode)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fchmod(fd, FILE_MODE)
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read; OSError for any other kind, without waiting for a FIFO's writer.

    Links are followed: Kubernetes mounts secrets as links.
    """
    _check_regular(path.stat().st_mode)  # opening a device may have effects
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file; OSError above `limit` bytes, also in /proc, where st_size is 0."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes")
    return content


def _check_owner(home: Path, path: Path, uid: int, what: str) -> None:
    if uid not in (os.geteuid(), 0):
        raise SettingError(
            f"HEADRACE_HOME: {path} {what} uid {uid}, expected uid {os.geteuid()}, who runs this; run as that user, or "
            "set HEADRACE_HOME to a folder of your own"
        )


def _check_writers(home: Path, path: Path, *, may_be_sticky: bool) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH and not (may_be_sticky and mode & stat.S_ISVTX):
        where = str(home) if path == home else f"{path}, above {home},"
        raise SettingError(
            f"HEADRACE_HOME: {where} can be changed by every user, expected only by its owner; `chmod o-w {path}`, or "
            "set HEADRACE_HOME to another folder"
        )


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISLNK, "link"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
        kind = next((name for is_one, name in kinds if is_one(mode)), "device")
        raise OSError(errno.EINVAL, f"found a {kind}, expected a regular file")
