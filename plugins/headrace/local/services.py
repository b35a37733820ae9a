"""`headrace up`, `down` and `env`: every local service as one thing.

What is given by HEADRACE_POSTGRES_DSN, HEADRACE_KAFKA_BOOTSTRAP_SERVERS, HEADRACE_REDIS_URL or HEADRACE_AIRFLOW_URL is
used, never started or stopped.
"""

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local import airflow, kafka, postgres, postgres_roles, registry, valkey
from headrace.local.addresses import GIVEN, environment, given
from headrace.local.airflow_options import full_environment as airflow_environment
from headrace.local.home import Home, locked
from headrace.local.ports import choose_port, is_free
from headrace.local.postgres import binary as postgres_binary
from headrace.settings import PREFIX, Settings, read_services

__all__ = ["airflow_environment", "down", "environment", "postgres_binary", "psql_command", "up"]

SERVICES = ("postgres", "kafka", "redis", "airflow")
OPTIONAL = ("registry",)  # started only by its name
HUNG_LIMIT_S = 20.0  # how long a service that runs may take to answer before it is started again
PORT_TAKEN = ("Address already in use", "could not bind")  # in the words of Java, Valkey and Postgres
ATTEMPTS_MAX = 6  # another program may take a chosen port before our service does: of three homes at once, several do


def up(settings: Settings, only: Collection[str] = SERVICES, print_line: PrintLine = print) -> dict[str, Any]:
    """Start the local services that do not run and wait until they are healthy; repair what a kill left half made.

    Calling it again changes nothing. Returns each service's address and ports, given ones included. Raises
    LocalServiceError with the last log lines of a service that did not start; started services keep running.
    """
    known_names = (*SERVICES, *OPTIONAL)
    if unknown := sorted(set(only) - set(known_names)):
        raise LocalServiceError(
            f"up: {', '.join(unknown)} is no local service; expected some of {', '.join(known_names)}"
        )
    wanted = {service for service in only if given(settings, service) is None}
    if "airflow" in wanted and given(settings, "postgres") is None:
        wanted.add("postgres")  # for Airflow's metadata
    with locked(settings.home, print_line) as home:
        starter = _Starter(home, settings, _one_at_a_time(print_line))
        starter.choose_ports(wanted)
        with ThreadPoolExecutor(1) as pool:
            broker = pool.submit(starter.start_kafka) if "kafka" in wanted else None
            if "postgres" in wanted:
                starter.start_postgres()
            if "redis" in wanted:
                starter.start_redis()
            if "registry" in wanted:
                starter.start_registry()
            if "airflow" in wanted:
                airflow.prepare(home, settings, starter.print_line)
            if broker is not None:
                broker.result()
        if "airflow" in wanted:
            starter.start_airflow()
    known = environment(settings)  # where a given DSN has lost its password
    external = {
        service: {"address": known.get(PREFIX + GIVEN[service].upper(), given(settings, service))}
        for service in (*SERVICES, *OPTIONAL)
        if given(settings, service)
    }
    return read_services(settings.home) | external


def down(settings: Settings, print_line: PrintLine = print) -> None:
    """Stop every service that this HEADRACE_HOME started, and nothing else; their data and ports stay."""
    if not settings.home.exists():
        return
    with locked(settings.home, print_line) as home:
        stops: dict[str, Callable[[Path], bool]] = {
            "airflow": airflow.stop,  # first: its tasks use the others
            "kafka": kafka.stop,
            "redis": valkey.stop,
            "registry": registry.stop,
            "postgres": postgres.stop,
        }
        for service, stop in stops.items():
            if stop(home.path):
                print_line(f"{service}: stopped")


def psql_command(settings: Settings) -> list[str]:
    """The command line of the wheel's psql, connected to the server, given or local; no secret is in it."""
    known = environment(settings)
    if "HEADRACE_POSTGRES_DSN_FILE" in known:
        raise LocalServiceError(
            "psql: found a secret beside the password in the DSN, expected none: other users could read it in the list "
            "of processes; name a key without sslpassword, or start psql with a service file (PGSERVICEFILE)"
        )
    dsn = known.get("HEADRACE_POSTGRES_DSN") or settings.require_postgres_dsn()
    return [str(postgres_binary("psql")), dsn]


class _Starter:
    """One `headrace up`: the ports it chose and the services it starts."""

    def __init__(self, home: Home, settings: Settings, print_line: PrintLine) -> None:
        self.home = home
        self.settings = settings
        self.print_line = print_line
        self.ports: dict[str, int] = {}
        self._remembering = threading.Lock()

    def choose_ports(self, wanted: Collection[str]) -> None:
        """Keep the ports of services that run, find ports for the others."""
        for service, process in (
            ("postgres", postgres.service(self.home.path)),
            ("kafka", kafka.service(self.home.path)),
            ("redis", valkey.service(self.home.path)),
            ("registry", registry.service(self.home.path)),
            *(("airflow", airflow.component(self.home.path, name)) for name in airflow.COMPONENTS),
        ):
            names = (service, "controller") if service == "kafka" else (service,)
            if process.pid() is not None and len(process.ports()) == len(names):
                self.ports |= dict(zip(names, process.ports(), strict=True))
        for service in sorted(wanted, key=(*SERVICES, *OPTIONAL).index):
            demanded = self._demanded(service)
            if service in self.ports and demanded not in (None, self.ports[service]):
                self._choose(service)  # refuses a port that is taken, before anything is stopped
                self._stop(service, f"moving to port {demanded}")
            elif service not in self.ports:
                self._stop(service, "its ports are unknown")
                self._choose(service)
            if service == "kafka" and "controller" not in self.ports:
                self._choose("controller")

    def start_postgres(self) -> None:
        """Start Postgres, or leave it be when it is healthy."""
        self._start(
            "postgres",
            lambda: postgres.why_not_ready(self.home.path, self.ports["postgres"]),
            lambda: postgres.start(self.home, self.ports["postgres"], self.print_line),
            running=lambda: postgres.service(self.home.path).pid() is not None,
        )
        postgres_roles.prepare(self.home.path, self.ports["postgres"])

    def start_kafka(self) -> None:
        """Start Kafka, or leave it be when it is healthy."""
        self._start(
            "kafka",
            lambda: kafka.why_not_ready(self.home.path, self.ports["kafka"]),
            lambda: kafka.start(self.home, self.ports["kafka"], self.ports["controller"], self.print_line),
            running=lambda: kafka.is_running(self.home.path),
        )

    def start_redis(self) -> None:
        """Start Valkey, or leave it be when it is healthy."""
        self._start(
            "redis",
            lambda: valkey.why_not_ready(self.ports["redis"]),
            lambda: valkey.start(self.home, self.ports["redis"]),
            running=lambda: valkey.is_running(self.home.path),
        )

    def start_registry(self) -> None:
        """Start the schema registry, or leave it be when it is healthy."""
        self._start(
            "registry",
            lambda: registry.why_not_ready(self.ports["registry"]),
            lambda: registry.start(self.home, self.ports["registry"], self.print_line),
            running=lambda: registry.is_running(self.home.path),
        )

    def start_airflow(self) -> None:
        """Start Airflow's components that do not run; its options decide whether the others may stay."""

        def start() -> dict[str, Any]:
            port = self.ports["airflow"]
            self._remember("airflow", {"address": f"http://127.0.0.1:{port}", "port": port})  # its options hold it
            return airflow.start(self.home, self.settings, port, self.print_line)

        self._start(
            "airflow", lambda: "", start, running=lambda: False
        )  # it starts only the components that are missing

    def _start(
        self,
        service: str,
        why_not_ready: Callable[[], str | None],
        start: Callable[[], dict[str, Any]],
        *,
        running: Callable[[], bool],
    ) -> None:
        began = time.monotonic()
        if running():
            while why_not_ready() is not None and running() and time.monotonic() < began + HUNG_LIMIT_S:
                time.sleep(0.2)
            if running() and why_not_ready() is None:
                self._remember(service, self._record(service))
                self.print_line(f"{service}: running on 127.0.0.1:{self.ports[service]}")
                return
            self._stop(service, "it does not answer, starting it again")
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                self._remember(service, start())
                break
            except LocalServiceError as error:
                # the process that took a port may have ended: then the same ports will do
                lost = self._lost_a_port(service) or any(sign in str(error) for sign in PORT_TAKEN)
                if attempt == ATTEMPTS_MAX or not lost:
                    raise
        self.print_line(f"{service}: ready on 127.0.0.1:{self.ports[service]} ({time.monotonic() - began:.1f} s)")

    def _lost_a_port(self, service: str) -> bool:
        """Whether another program took a port of a service that failed to start; if so, another port is chosen."""
        names = ("kafka", "controller") if service == "kafka" else (service,)
        lost = [name for name in names if not is_free(self.ports[name])]
        for name in lost:
            self.print_line(f"{service}: port {self.ports[name]} was taken by another program, choosing another")
            del self.ports[name]
            self._choose(name)
        return bool(lost)

    def _choose(self, name: str) -> None:
        service, key = ("kafka", "controller_port") if name == "controller" else (name, "port")
        remembered = read_services(self.home.path).get(service, {}).get(key)
        self.ports[name] = choose_port(
            name,
            demanded=self._demanded(name),
            remembered=remembered if isinstance(remembered, int) else None,
            reserved={port for other, port in self.ports.items() if other != name},
        )

    def _demanded(self, name: str) -> int | None:
        port: int | None = getattr(self.settings, f"{name}_port", None)
        return port

    def _record(self, service: str) -> dict[str, Any]:
        port = self.ports[service]
        if service == "postgres":
            return postgres.record(self.home.path, port)
        if service == "redis":
            return {"address": valkey.url(port), "port": port}
        if service == "registry":
            return {"address": registry.address(port), "port": port}
        return {"address": f"127.0.0.1:{port}", "port": port, "controller_port": self.ports["controller"]}

    def _remember(self, service: str, record: dict[str, Any]) -> None:
        with self._remembering:
            self.home.remember(service, record)

    def _stop(self, service: str, why: str) -> None:
        stops = {"postgres": postgres.stop, "kafka": kafka.stop, "redis": valkey.stop, "airflow": airflow.stop}
        stops["registry"] = registry.stop
        if stops[service](self.home.path):
            self.print_line(f"{service}: stopped, {why}")


def _one_at_a_time(print_line: PrintLine) -> PrintLine:
    lock = threading.Lock()

    def reported(line: str) -> None:
        with lock:
            print_line(line)

    return reported
