"""Files and folders that other users of the machine can neither read, replace nor put a link in the place of.

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
    """Refuse a HEADRACE_HOME that another user owns or can exchange; one that does not exist yet may be made.

    Its services.json says where passwords are sent. root is trusted, as it can read everything anyway.
    """
    home = home.absolute()
    for path in (home, *home.parents):
        if path.is_symlink():
            _check_owner(home, path, path.lstat().st_uid, "is a link of")
    home = home.resolve()
    if home.exists() and not home.is_dir():
        return  # /dev/null: a deployment without one, where nothing is read or written
    with suppress(OSError):  # not there, or closed to this user: what needs it says so
        for path in reversed(home.parents):
            _check_writers(home, path, may_be_sticky=True)
        _check_writers(home, home, may_be_sticky=False)
        _check_owner(home, home, home.stat().st_uid, "belongs to")


def make_folder(path: Path) -> None:
    """Make a folder of mode 0700; parents that are missing get 0755. One that exists stays as it is."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o755, exist_ok=True)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def close_to_others(folder: Path) -> None:
    """Take all rights of other users from a folder and everything in it, where the folder has any; links are left.

    The folder itself comes last: a kill in between leaves it for the next time.
    """
    if not stat.S_IMODE(folder.stat().st_mode) & OTHERS:
        return
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            with suppress(FileNotFoundError):  # the server that writes here goes on
                found = path.lstat()
                if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode):
                    path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
    folder.chmod(FOLDER_MODE)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600 to write; it takes the place of `path` at the end of the block, whole and on disk, or never.

    Raises OSError, also where something else than a regular file is there: a link is neither followed nor replaced.
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
    """Open a file to read; OSError for anything but a regular file, without waiting for a FIFO's other end.

    Links are followed: Kubernetes mounts its secrets as such.
    """
    _check_regular(path.stat().st_mode)  # a device may do something when it is opened
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(fd).st_mode)
    except OSError:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file; OSError where it has more than `limit` bytes, as /proc's may whose size is said to be 0."""
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
