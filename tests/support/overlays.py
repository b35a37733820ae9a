"""Packages in a folder of their own, for PYTHONPATH beside the venv: what few tests need costs the others nothing."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.debian import cache_folder


def overlay(*packages: str) -> Path:
    """A folder with these packages, pinned as name==version, without their dependencies; kept for the next run."""
    names = "\n".join([sys.version, *packages])
    folder = cache_folder() / "overlays" / hashlib.sha256(names.encode()).hexdigest()[:16]
    if not (folder / "complete").exists():
        uv = Path(sys.executable).parent / "uv"
        options: list[str | Path] = ["--quiet", "--no-deps", "--python", sys.executable, "--target", folder]
        subprocess.run([uv, "pip", "install", *options, *packages], check=True, timeout=600)
        (folder / "complete").touch()
    return folder
