"""Programs out of Debian's packages, unpacked into a folder and not installed: the machine is not changed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

LIMIT_S = 600


class PackageNotAvailable(Exception):
    """A program that is not available here, and why."""


def cache_folder() -> Path:
    """Where what tests took from elsewhere stays, so that the next run is quick."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headrace"


def unpacked(root: Path, packages: tuple[str, ...], print_line: Callable[[str], None]) -> Path:
    """Unpack packages and what they need below `root`, unless they are there; returns it.

    Raises NotAvailable where they cannot be had: not root, no Debian, no registry.
    """
    if (root / "complete").exists():
        return root
    if os.geteuid() != 0:  # apt keeps its lists to root
        raise PackageNotAvailable(f"only root can take {', '.join(packages)} from Debian")
    if not shutil.which("apt-get"):
        raise PackageNotAvailable(f"this is no Debian that {', '.join(packages)} could be taken from")
    print_line(f"taking Debian's {', '.join(packages)}, unpacked, not installed")
    shutil.rmtree(root, ignore_errors=True)
    archives = root / "archives"
    (archives / "partial").mkdir(parents=True)
    download = [
        *("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "--download-only", "--reinstall"),
        *("-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", *packages),
    ]
    try:
        try:
            _run(download)
        except subprocess.CalledProcessError:  # its lists are missing or of another day
            _run(["apt-get", "update", "--quiet"])
            _run(download)
        for package in sorted(archives.glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(root)])
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(getattr(error, "stderr", "") or "").strip().splitlines()
        raise PackageNotAvailable(f"Debian's {', '.join(packages)}: {said[-1] if said else error}") from error
    shutil.rmtree(archives)
    (root / "complete").touch()
    return root


def library_path(root: Path) -> str:
    """LD_LIBRARY_PATH for what was unpacked: its own libraries before this machine's."""
    return os.pathsep.join([*map(str, _libraries(root)), *filter(None, [os.environ.get("LD_LIBRARY_PATH", "")])])


def _libraries(root: Path) -> Iterator[Path]:
    yield from root.glob("usr/lib/*-linux-gnu")
    yield from root.glob("lib/*-linux-gnu")


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, errors="replace", timeout=LIMIT_S)
