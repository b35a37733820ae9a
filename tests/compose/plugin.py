"""Docker Compose: the plugin that is here, or built from its Go module."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.compose.engine import Engine, NotAvailable, run

MODULE = "github.com/docker/compose/v2"
VERSION = "v2.40.3"
GO = ("go", "/usr/local/go/bin/go")


def compose_command(engine: Engine, cache: Path, print_line: Callable[[str], None]) -> list[str]:
    """The words before `up`: `docker compose`, or a program of our own that is built once and kept in `cache`."""
    if engine.succeeds("compose", "version"):
        print_line("compose: " + engine.docker("compose", "version", "--short").strip())
        return ["docker", "compose"]
    program = cache / f"docker-compose-{VERSION}"
    if not program.exists():
        print_line(f"compose: building {MODULE} {VERSION} (the first time, minutes)")
        _build(program)
    print_line(f"compose: {VERSION}, built from its Go module")
    return [str(program)]


def _build(program: Path) -> None:
    go = next((found for found in map(shutil.which, GO) if found), None)
    if go is None:
        raise NotAvailable("`docker compose` is not there, and neither is Go to build it with")
    with tempfile.TemporaryDirectory(prefix="headrace-compose-") as name:
        environment = {**os.environ, "GOFLAGS": "-mod=mod"}
        (Path(name) / "go.mod").write_text("module throwaway\n\ngo 1.24\n")
        made = Path(name) / "docker-compose"
        version = f"-X {MODULE}/internal.Version={VERSION}"
        steps = [
            [go, "-C", name, "get", f"{MODULE}/cmd@{VERSION}"],
            [go, "-C", name, "build", "-ldflags", version, "-o", str(made), f"{MODULE}/cmd"],
        ]
        try:
            for step in steps:
                run(step, environment, limit_s=1_200)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise NotAvailable(f"`docker compose` is not there and cannot be built: {error}") from error
        program.parent.mkdir(parents=True, exist_ok=True)
        partial = program.with_suffix(".partial")
        shutil.move(made, partial)
        partial.rename(program)
