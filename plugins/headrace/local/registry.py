"""Apicurio Registry: a schema registry that speaks Confluent's API, in one Java process on 127.0.0.1.

It starts only where it is asked for: `headrace up --only registry`. Schemas and their ids are in a file below
HEADRACE_HOME, so that they outlive a restart as the topics do that name them. It asks for no login: unlike the brokers,
it is open to every user of this machine.
"""

import hashlib
import http.client
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local.home import Home
from headrace.local.jars import java, pinned
from headrace.local.process import Service
from headrace.private_files import close_to_others, make_folder

GROUP, NAME, VERSION = "io.apicurio", "apicurio-registry-app", "3.3.3"
PINS = Path(__file__).with_name("registry.sha256")
PATH = "/apis/ccompat/v7"
READY_LIMIT_S = 120.0  # answers after 20 s on two cores, with 250 MB resident
HEAP = "-Xmx256m"


def service(home: Path) -> Service:
    """The registry's process."""
    return Service(home, "registry")


def is_running(home: Path) -> bool:
    """Whether the registry runs."""
    return service(home).pid() is not None


def address(port: int) -> str:
    """Where its clients find Confluent's API."""
    return f"http://127.0.0.1:{port}{PATH}"


def start(home: Home, port: int, print_line: PrintLine) -> dict[str, Any]:
    """Start the registry; return its address and port.

    Raises LocalServiceError where Maven Central cannot be reached, or serves another archive than the pinned one.
    """
    stop(home.path)
    room = home.path / "registry"
    make_folder(room)
    close_to_others(room)
    app = _unpacked(archive(home, print_line), room / "app")
    process = service(home.path)
    argv: list[str | Path] = [
        java(),
        HEAP,
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # it starts in half the time, and is asked for few schemas
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.net.preferIPv4Stack=true",  # else it listens on a socket of both families
        f"-D{process.mark}",
        "-Dquarkus.http.host=127.0.0.1",
        f"-Dquarkus.http.port={port}",
        "-Dquarkus.management.host=127.0.0.1",  # else health and metrics are on port 9000 of all interfaces
        "-Dquarkus.management.port=0",
        # a relative path, so that no character of HEADRACE_HOME can break the URL
        "-Dapicurio.datasource.url=jdbc:h2:file:./data/registry",
        "-Dapicurio.datasource.jdbc.initial-size=2",
        "-Dapicurio.datasource.jdbc.min-size=2",
        "-Dquarkus.log.level=WARN",
        "-Dquarkus.http.access-log.enabled=false",
        "-jar",
        app / "quarkus-run.jar",
    ]
    try:
        process.start(argv, ports=[port], env=os.environ, cwd=room)
        process.wait(lambda: why_not_ready(port), READY_LIMIT_S)
    except BaseException:
        stop(home.path)
        raise
    return {"address": address(port), "port": port}


def stop(home: Path) -> bool:
    """Stop the registry. Returns whether it ran."""
    return service(home).stop()


def why_not_ready(port: int) -> str | None:
    """What keeps the registry from being healthy; None when it lists its subjects."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", f"{PATH}/subjects")
        response = connection.getresponse()
        body = response.read(1024 * 1024)
        if response.status == 200 and isinstance(json.loads(body), list):
            return None
        return f"127.0.0.1:{port} answers {response.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"127.0.0.1:{port} does not answer ({str(error) or type(error).__name__})"
    finally:
        connection.close()


def archive(home: Home, print_line: PrintLine, pins: Path = PINS) -> Path:
    """The pinned archive: from Maven's cache, or from Maven Central into a cache of our own."""
    ((place, expected),) = pinned(pins).items()
    kept = home.path / "registry" / "repository" / place
    for path in (kept, Path.home() / ".m2" / "repository" / place):
        if path.is_file() and sha256(path) == expected:
            return path
    print_line(f"registry: downloading Apicurio {VERSION} from Maven Central (the first time, 158 MB)")
    shutil.rmtree(home.path / "registry" / "repository", ignore_errors=True)
    try:
        path = download(home.path / "registry" / "repository")
    except Exception as error:  # jgo raises what its libraries raise
        raise LocalServiceError(
            f"registry: {GROUP}:{NAME}:{VERSION} cannot be had ({' '.join(str(error).split())[:300]}); expected Maven "
            "Central to answer; check the network or the proxy and try again, or set HEADRACE_REGISTRY_URL"
        ) from error
    found = sha256(path)
    if found != expected:
        path.unlink()
        raise LocalServiceError(
            f"registry: {path.name}: found SHA-256 {found}, expected {expected}; nothing was run; have the mirror of "
            "Maven Central serve the released file and try again, or set HEADRACE_REGISTRY_URL to a registry"
        )
    return path


def download(repository: Path) -> Path:
    """Fetch the archive from Maven Central into a repository of this layout."""
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, remote_repos={"central": MAVEN_CENTRAL_URL})
    component = context.project(GROUP, NAME).at_version(VERSION)
    return Path(component.artifact(classifier="all", packaging="tar.gz").resolve())


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpacked(path: Path, target: Path) -> Path:
    """The archive, unpacked again at each start: what runs is what was pinned."""
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(path) as tar:
        tar.extractall(target, filter="data")
    return target
