"""The suite's own servers, which are started, killed, frozen and started again."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from headrace.local import kafka, postgres, services
from headrace.settings import Settings
from tests.support.databases import create_database, make_owner_superuser


class Servers:
    """A HEADRACE_HOME below /tmp with a Postgres, a broker or both."""

    def __init__(self, only: Sequence[str] = ("postgres", "kafka")) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="headrace-faults-", dir="/tmp"))
        self.home.chmod(0o755)  # Postgres runs as another user
        self._settings = Settings(home=self.home)
        self._only = tuple(only)

    def start(self) -> None:
        """Start stopped services and wait until they answer."""
        services.up(self._settings, only=self._only, print_line=_quiet)
        if "postgres" in self._only:
            make_owner_superuser(self.home)

    @property
    def settings(self) -> Settings:
        """Settings of the home, with the local addresses."""
        return Settings.from_environment({"HEADRACE_HOME": str(self.home)})

    def address(self, service: str) -> str:
        """Postgres's DSN or Kafka's bootstrap servers."""
        record: dict[str, Any] = self.settings.services[service]
        return str(record["address"])

    def database(self, name: str) -> str:
        """Make a database; returns its DSN."""
        return create_database(self.address("postgres"), name)

    def kill_postgres(self) -> None:
        """SIGKILL for the postmaster; its backends notice by themselves."""
        os.kill(_pid(postgres.service(self.home).pid()), signal.SIGKILL)

    def shut_postgres_down(self) -> None:
        """Shut down like an administrator: clients are disconnected, then the server ends."""
        postgres.stop(self.home)

    def crash_postgres(self, backend: int) -> None:
        """SIGKILL for one backend: the server ends all others and recovers from its log."""
        os.kill(backend, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:
            time.sleep(0.02)
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=5).close()
                return
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise

    def kill_broker(self) -> None:
        """SIGKILL for the broker."""
        os.kill(_pid(kafka.service(self.home).pid()), signal.SIGKILL)

    def freeze_broker(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        pid = _pid(kafka.service(self.home).pid())
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop all services and remove their files."""
        services.down(self._settings, print_line=_quiet)
        shutil.rmtree(self.home, ignore_errors=True)


def _pid(pid: int | None) -> int:
    assert pid is not None, "the server does not run"
    return pid


def _quiet(_line: str) -> None:
    pass
