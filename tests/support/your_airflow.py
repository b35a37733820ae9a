"""A shell that runs the blocks of docs/your-airflow.md, and an Airflow that it installed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "your-airflow.md"
UV = Path(sys.executable).with_name("uv")
# Each release, and a day after it: what PyPI had then stands in for the constraints, whose host is not reached here
RELEASES = {"3.1": ("3.1.6", "2026-01-15"), "3.3": ("3.3.2", "2026-11-21")}
CONSTRAINTS = re.compile(r'"https://raw\.githubusercontent\.com/apache/airflow/constraints-\S+"')
LIMIT_S = 1800.0


def blocks() -> dict[str, list[str]]:
    """The page's shell commands, by heading."""
    sections = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    headings = ["", *sections[1::2]]
    texts = [sections[0], *sections[2::2]]
    return {
        heading: re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for heading, text in zip(headings, texts, strict=True)
    }


def build_wheel(folder: Path, version: str, changes: Callable[[Path], None] = lambda _: None) -> None:
    """Build the package under a version, from a copy that `changes` may alter, into folder/wheels."""
    source = folder / f"source-{version}"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "target", "logs")
    for name in ("plugins", "dbt"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    init = source / "plugins" / "headrace" / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
    changes(source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True, timeout=600)


def write_constraints(path: Path, airflow: str, day: str, python: str) -> None:
    """Write what PyPI had for a version of Airflow on a day as a file of constraints."""
    command = [str(UV), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "-"]
    options = ["--exclude-newer", day, "--python-version", python, "--output-file", str(path)]
    wanted = f"apache-airflow[celery,postgres]=={airflow}"  # the constraints have every provider
    subprocess.run([*command, *options], input=wanted, text=True, check=True, timeout=600)


def find_python(version: str) -> str:
    """This machine's Python of a version: pyenv's, whose shims start only a chosen version, or what uv finds."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    if found := sorted(root.glob(f"versions/{version}.*/bin/python")):
        return str(found[-1])
    command = [str(UV), "python", "find", "--no-python-downloads", "--no-project", "--system", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LookupError(f"Python {version} is not on this machine: install it, or choose another by PYTHON=")
    return done.stdout.strip()


def warehouse_of(started: Mapping[str, Any]) -> dict[str, str]:
    """Where Postgres and Kafka of local services are, as the page's variables name it."""
    address = urlsplit(started["postgres"]["address"])
    (passfile,) = parse_qs(address.query)["passfile"]
    password = Path(passfile).read_text().splitlines()[0].rpartition(":")[2]
    return {
        "WAREHOUSE_HOST": str(address.hostname), "WAREHOUSE_PORT": str(address.port),
        "WAREHOUSE_DB": address.path.strip("/"), "WAREHOUSE_USER": str(address.username),
        "WAREHOUSE_PASSWORD": password, "BROKERS": started["kafka"]["address"],
    }  # fmt: skip


def warehouse_rows(warehouse: Mapping[str, str], query: LiteralString) -> list[tuple[object, ...]]:
    """Rows of a query; none before there is a mart."""
    with psycopg.connect(
        host=warehouse["WAREHOUSE_HOST"], port=warehouse["WAREHOUSE_PORT"], dbname=warehouse["WAREHOUSE_DB"],
        user=warehouse["WAREHOUSE_USER"], password=warehouse["WAREHOUSE_PASSWORD"],
    ) as connection:  # fmt: skip
        found = connection.execute("select to_regclass('marts.orders') is not null").fetchone()
        return connection.execute(query).fetchall() if found and found[0] else []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a folder read-only in its own place; elsewhere, where only root may mount, leave it as it is."""
    commands = (["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)])
    done = [subprocess.run(command, capture_output=True).returncode == 0 for command in commands if os.geteuid() == 0]
    print(f"{folder}: {'read-only' if all(done) and done else 'NOT read-only: this system does not mount'}", flush=True)
    try:
        yield
    finally:
        if done and done[0]:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a process that ends may still be in it


@dataclass(slots=True)
class Shell:
    """A shell whose variables last from block to block, as in a terminal."""

    home: Path
    variables: dict[str, str]
    constraints: Path
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, block: str) -> str:
        """Run a block; return its output. Only the address of the constraints is replaced."""
        state = self.home / "shell-state"
        text = CONSTRAINTS.sub(f'"{self.constraints}"', block)
        begin = f". {state}\n" if state.exists() else ""
        script = f"set -euo pipefail\n{begin}{text}\n{{ export -p; echo cd '\"'$PWD'\"'; }} > {state}\n"
        done = subprocess.run(
            ["bash", "-c", script], env=self.variables, cwd=self.home, capture_output=True, text=True, timeout=LIMIT_S
        )
        print(f"$ {text}{done.stdout[-2000:]}{done.stderr[-2000:]}", flush=True)
        assert done.returncode == 0, f"{text}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
        return done.stdout

    def start(self, *components: str) -> None:
        """Start processes of Airflow, each in a session of its own."""
        for component in components:
            with (self.home / f"{component}.log").open("ab") as log:
                script = f". {self.home / 'shell-state'}\nexec airflow {component}"
                self.servers.append(
                    subprocess.Popen(
                        ["bash", "-c", script], env=self.variables, cwd=self.home, stdout=log, stderr=log,
                        start_new_session=True,
                    )
                )  # fmt: skip

    def stop(self) -> None:
        """End these processes and what they started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for server in self.servers:
                try:
                    os.killpg(server.pid, sign)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and any(server.poll() is None for server in self.servers):
                time.sleep(0.2)
        self.servers.clear()

    def logs(self) -> str:
        """The ends of the logs of these processes."""
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in self.home.glob("*.log"))


@dataclass(frozen=True, slots=True)
class Api:
    """Airflow's API, whose every caller is an admin."""

    url: str

    def call(self, method: str, path: str, document: Any = None) -> httpx.Response:
        """Ask with a token."""
        token = httpx.get(f"{self.url}/auth/token", trust_env=False, timeout=60).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.request(method, f"{self.url}{path}", json=document, headers=headers, trust_env=False, timeout=120)

    def get(self, path: str) -> Any:
        """The document of an address."""
        response = self.call("GET", path)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text[:2000]}"
        return json.loads(response.text)


def waited(what: str, check: Callable[[], Any], shell: Shell, limit_s: float = 900.0) -> Any:
    """What `check` returns as soon as that is true; a server that is not up yet is no answer."""
    deadline = time.monotonic() + limit_s
    found: Any = None
    while time.monotonic() < deadline:
        try:
            found = check()
        except httpx.HTTPError as error:
            found = None
            last: object = error
        else:
            last = found
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"{what}: {last} after {limit_s:.0f} s\n{shell.logs()}")
