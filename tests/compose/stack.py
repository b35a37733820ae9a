"""One `docker compose up` of this checkout: its .env, its commands, its end."""

import json
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from psycopg.rows import dict_row

from headrace.sample.airflow_api import AirflowApi
from tests.compose.engine import Engine, run

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("POSTGRES_PORT", "KAFKA_PORT", "VALKEY_PORT", "AIRFLOW_PORT", "KAFKA_UI_PORT")
PROFILES = {"ui", "scale"}  # not `registry`: no package has its image
UP_LIMIT_S = 600
SECRETS = re.compile(r"^([A-Z_]*(?:PASSWORD|SECRET|KEY|SECRET_KEY))=(.+)$", re.M)


@dataclass(frozen=True, slots=True)
class Stack:
    """The project on an engine; every command is the user's own, with a project name and an .env of this run."""

    engine: Engine
    words: tuple[str, ...]  # docker compose
    project: str
    env_file: Path
    override: Path

    def compose(self, *arguments: str, check: bool = True, limit_s: float = UP_LIMIT_S) -> str:
        """Run docker compose on this project."""
        options = ["--project-name", self.project, "--env-file", str(self.env_file), "--profile", "ui"]
        if self.is_scaled:
            options += ["--profile", "scale"]
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self.override)]
        # what a caller's shell sets would win over the file
        given = {*self.values(), "COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME", "AIRFLOW_EXECUTOR"}
        environment = {name: value for name, value in self.engine.environment.items() if name not in given}
        if self.engine.is_ours:
            environment["DOCKER_BUILDKIT"] = "0"  # docker.io of Debian 12 has no buildx
        return run([*self.words, *options, *files, *arguments], environment, check=check, limit_s=limit_s)

    def headrace(self, *arguments: str) -> str:
        """The command line, where the README says: in the scheduler's container."""
        return self.compose("exec", "--no-TTY", "scheduler", "headrace", *arguments)

    def query(self, statement: str, *values: Any, database: str = "headrace") -> list[dict[str, Any]]:
        """Rows of a query, over the published port."""
        given = self.values()
        with psycopg.connect(
            host="127.0.0.1",
            port=given["POSTGRES_PORT"],
            user="headrace",
            password=given["POSTGRES_PASSWORD"],
            dbname=database,
            row_factory=dict_row,
        ) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def services(self) -> dict[str, list[dict[str, Any]]]:
        """Each service's containers, ended ones included."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self.compose("ps", "--all", "--format", "json").splitlines():
            container = json.loads(line)
            found.setdefault(container["Service"], []).append(container)
        return found

    def wait_healthy(self, limit_s: float = UP_LIMIT_S) -> dict[str, list[dict[str, Any]]]:
        """Wait until every container is healthy, or has ended well where it may."""
        deadline = time.monotonic() + limit_s
        while unwell := [
            f"{container['Name']} is {container['State']} {container['Health'] or container['ExitCode']}"
            for containers in self.services().values()
            for container in containers
            if not _is_well(container)
        ]:
            assert time.monotonic() < deadline, f"after {limit_s:.0f} s: {'; '.join(unwell)}\n{self.log_tail(unwell)}"
            time.sleep(1)
        return self.services()

    def log_tail(self, unwell: list[str]) -> str:
        """The ends of the logs of what is not well."""
        names = [state.split()[0] for state in unwell]
        return "\n".join(self.engine.docker("logs", "--tail", "30", name, check=False) for name in names)

    def api(self) -> AirflowApi:
        """Airflow on its published port, logged in."""
        values = self.values()
        return AirflowApi(f"http://127.0.0.1:{values['AIRFLOW_PORT']}", "admin", values["AIRFLOW_ADMIN_PASSWORD"])

    def get(self, port: str, path: str) -> httpx.Response:
        """A page of a published port."""
        return httpx.get(f"http://127.0.0.1:{self.values()[port]}{path}", trust_env=False, timeout=30)

    def values(self) -> Mapping[str, str]:
        """What the .env gives."""
        return dict(re.findall(r"^([A-Z_]+)=(.*)$", self.env_file.read_text(), re.M))

    def secrets(self) -> dict[str, str]:
        """The values that no log may hold."""
        return dict(SECRETS.findall(self.env_file.read_text()))

    @property
    def is_scaled(self) -> bool:
        """Whether the profile with workers is up."""
        return self.values().get("AIRFLOW_EXECUTOR", "LocalExecutor") != "LocalExecutor"

    def left(self) -> dict[str, list[str]]:
        """What of the project is still on the engine."""
        ours = ("--filter", f"label=com.docker.compose.project={self.project}", "--quiet")
        return {
            "containers": self.engine.docker("ps", "--all", *ours).split(),
            "volumes": self.engine.docker("volume", "ls", *ours).split(),
            "networks": self.engine.docker("network", "ls", *ours).split(),
        }


def new_stack(
    engine: Engine, words: list[str], room: Path, executor: str | None = None, stand_ins: Collection[str] = ()
) -> Stack:
    """A project of its own: an .env with new secrets, made as .env.example says, and free ports.

    stand_ins: names and tags of images that are taken without the digest of their originals.
    """
    shutil.copy(ROOT / ".env.example", room)
    (command,) = re.findall(r"^# +(\(umask 077; .* > \.env\))$", (room / ".env.example").read_text(), re.M)
    subprocess.run(["bash", "-euc", command], cwd=room, check=True)
    env_file = room / ".env"
    assert env_file.stat().st_mode & 0o077 == 0, "the secrets are the user's alone"
    assert "replace-me" not in re.sub(r"^#.*$", "", env_file.read_text(), flags=re.M)
    with env_file.open("a") as file:
        file.writelines(f"{name}={port}\n" for name, port in zip(PORTS, _free_ports(len(PORTS)), strict=True))
        if executor is not None:
            file.write(f"AIRFLOW_EXECUTOR={executor}\n")
    override = room / "override.yml"
    # our engine's bridges have no way out, and pip needs one
    changes: dict[str, Any] = {"build": {"context": str(ROOT), "network": "host"}} if engine.is_ours else {}
    base = _base_image().partition("@")[0]
    if base in stand_ins:
        changes["build"] = {"context": str(ROOT), **changes.get("build", {}), "args": {"PYTHON_IMAGE": base}}
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    built = [name for name, service in compose["services"].items() if "build" in service]
    services: dict[str, Any] = {name: dict(changes) for name in built}
    networks: dict[str, Any] = {}
    if executor is not None:
        # drains of many shares and commits, and networks that can be taken away one by one
        networks = {"default": {}, "kafka": {}, "postgres": {}}
        for service in services.values():
            service["environment"] = {"HEADRACE_DRAIN_PARALLEL_LAG": "1000", "HEADRACE_BATCH_ROWS": "1000"}
            service["networks"] = list(networks)
        services |= {"kafka": {"networks": ["kafka"]}, "postgres": {"networks": ["postgres"]}}
        services["kafka-ui"] = {"networks": ["default", "kafka"]}
    for name, service in compose["services"].items():
        tagged = service["image"].partition("@")[0]
        if tagged in stand_ins:
            services.setdefault(name, {})["image"] = tagged
    override.write_text(yaml.safe_dump({"services": services, "networks": networks}))
    return Stack(engine, tuple(words), f"headrace-test-{secrets.token_hex(4)}", env_file, override)


def images() -> list[str]:
    """Every image that is not built here and that a profile of these tests starts, by name, tag and digest."""
    declared = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    services = [service for service in declared if PROFILES.issuperset(service.get("profiles", ()))]
    return sorted({service["image"] for service in services if "build" not in service} | {_base_image()})


def _base_image() -> str:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.M)
    return str(image)


def _is_well(container: dict[str, Any]) -> bool:
    if container["Service"] == "init":
        return bool(container["State"] == "exited" and container["ExitCode"] == 0)
    return bool(container["Health"] == "healthy")


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
