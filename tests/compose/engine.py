"""A Docker engine: the one that runs here, or Debian's, started for this run with everything in folders of its own."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support import debian
from tests.support.debian import library_path, unpacked

PACKAGES = ("docker.io", "iptables", "debootstrap")  # iptables: inside containers, for the names of the others
PROGRAMS = ("dockerd", "docker", "containerd", "runc", "docker-proxy", "debootstrap")
START_LIMIT_S = 60
STOP_LIMIT_S = 60


class NotAvailable(Exception):
    """What this machine lacks; the message says what would have to be there."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers."""

    environment: Mapping[str, str]  # what the programs docker and docker-compose are run with
    is_ours: bool  # started for this run: it has no way out of its bridges, and may be emptied

    def docker(self, *arguments: str, check: bool = True, limit_s: float = 600) -> str:
        """Run the docker program and return what it printed; AssertionError with all of it when it fails."""
        return run(["docker", *arguments], self.environment, check=check, limit_s=limit_s)

    def succeeds(self, *arguments: str) -> bool:
        """Whether the docker program ends with status 0."""
        done = subprocess.run(["docker", *arguments], env=dict(self.environment), capture_output=True, check=False)
        return done.returncode == 0


def run(argv: list[str], environment: Mapping[str, str], *, check: bool = True, limit_s: float = 600) -> str:
    """Run a command to its end; its output, both streams when it fails."""
    done = subprocess.run(
        argv, env=dict(environment), capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
    )
    if check and done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise AssertionError(f"{' '.join(argv)} ended with status {done.returncode}, expected 0:\n{said}")
    return done.stdout


@contextmanager
def engine(cache: Path, print_line: Callable[[str], None]) -> Iterator[Engine]:
    """The engine that answers here, else one of our own, which ends with the block.

    Ours keeps images below `cache`, so that the next run is quick, and everything else in a temporary folder. Raises
    NotAvailable if there is neither.
    """
    here = Engine(dict(os.environ), False)
    if shutil.which("docker") and here.succeeds("info"):
        print_line(
            "engine: the one that runs here, " + here.docker("version", "--format", "{{.Server.Version}}").strip()
        )
        yield here
        return
    programs = _programs(cache, print_line)
    with tempfile.TemporaryDirectory(prefix="headrace-engine-") as name:
        room = Path(name)
        environment = {**os.environ, **programs, "DOCKER_HOST": f"unix://{room}/docker.sock"}
        for variable in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
            environment.pop(variable, None)
        process = _start(room, cache / "images", environment)
        ours = Engine(environment, True)
        try:
            _wait(process, ours, room / "dockerd.log")
            _empty(ours)  # what a run that was killed left behind
            version = ours.docker("version", "--format", "{{.Server.Version}}").strip()
            print_line(f"engine: Debian's docker.io {version}, started for this run, stopped with it")
            yield ours
        finally:
            try:
                if process.poll() is None:
                    _empty(ours)
            finally:
                _stop(process, room)


def debootstrap(engine: Engine) -> str | None:
    """The program debootstrap, where this machine or our own packages have it."""
    return shutil.which("debootstrap", path=engine.environment["PATH"])


def _programs(cache: Path, print_line: Callable[[str], None]) -> dict[str, str]:
    """The variables by which the engine's programs are found: this machine's, or unpacked from Debian's packages.

    The packages are unpacked below `cache`, not installed: the machine stays as it is.
    """
    if os.geteuid() != 0:
        raise NotAvailable("no Docker engine answers, and only root can start one")
    if all(shutil.which(program) for program in (*PROGRAMS, "iptables")):
        return {}
    try:
        root = unpacked(cache / "debian", PACKAGES, lambda line: print_line(f"engine: none answers; {line}"))
    except debian.PackageNotAvailable as error:
        raise NotAvailable(f"no Docker engine answers, and {error}") from error
    for name in ("iptables", "ip6tables"):  # Debian's alternatives are links that installing makes
        link = root / "usr" / "sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("xtables-legacy-multi")
    return {
        "PATH": os.pathsep.join([f"{root}/usr/sbin", f"{root}/usr/bin", os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": library_path(root),
        "XTABLES_LIBDIR": os.pathsep.join(str(path) for path in root.glob("usr/lib/*-linux-gnu/xtables")),
        "DEBOOTSTRAP_DIR": f"{root}/usr/share/debootstrap",
    }


def _start(room: Path, images: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start dockerd; it changes neither the machine's packet filter nor its forwarding.

    Containers reach each other by their bridge and are reached by the published ports' proxies; neither needs more.
    """
    images.mkdir(parents=True, exist_ok=True)
    configuration = room / "daemon.json"
    configuration.write_text(json.dumps({"log-driver": "json-file"}))
    argv = [
        *("dockerd", "--config-file", str(configuration), "--data-root", str(images)),
        *("--exec-root", str(room / "exec"), "--pidfile", str(room / "docker.pid")),
        *("--host", environment["DOCKER_HOST"], "--bridge", "none"),
        *("--iptables=false", "--ip-forward=false", "--ip-masq=false"),
    ]
    with (room / "dockerd.log").open("wb") as log:
        return subprocess.Popen(argv, env=dict(environment), stdout=log, stderr=log, start_new_session=True)


def _wait(process: subprocess.Popen[bytes], ours: Engine, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while not ours.succeeds("info"):
        if process.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise NotAvailable(f"dockerd does not start here; its log ends:\n{last}")
        time.sleep(0.2)


def _empty(ours: Engine) -> None:
    """Remove all but images: no container comes back with the next start, no bridge stays behind."""
    if containers := ours.docker("ps", "--all", "--quiet").split():
        ours.docker("rm", "--force", "--volumes", *containers)
    ours.docker("network", "prune", "--force")
    if volumes := ours.docker("volume", "ls", "--quiet").split():
        ours.docker("volume", "rm", "--force", *volumes)


def _stop(process: subprocess.Popen[bytes], room: Path) -> None:
    """Stop dockerd and the containerd that it started; what is still mounted in the room is unmounted."""
    family = [process.pid, *(child.pid for child in _children(process.pid))]
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    left = [psutil.Process(pid) for pid in family[1:] if psutil.pid_exists(pid)]
    for stray in left:
        if str(room) in " ".join(stray.cmdline()):
            stray.kill()
    psutil.wait_procs(left, timeout=10)
    for group in (*Path("/sys/fs/cgroup").glob("docker"), *Path("/sys/fs/cgroup").glob("*/docker")):
        with suppress(OSError):  # another engine's is not empty
            group.rmdir()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{room}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
