"""The composition root: settings, and functions that open Postgres, Kafka and Redis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from headrace.catalog import load_declaration
from headrace.dataset import Dataset
from headrace.postgres.connection import Connect, connector
from headrace.postgres.lock_watchdog import LockTimeouts
from headrace.retries import Retries
from headrace.settings import Settings
from headrace.sources.kafka_security import from_settings


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings and services of a run.

    connect: takes an application name, returns a function that opens Postgres connections. kafka: returns
    kafka-python's client settings; called only for datasets that read Kafka. redis: returns a URL; called only for
    Redis streams.
    """

    settings: Settings
    connect: Callable[[str], Connect]
    kafka: Callable[[], Mapping[str, Any]]
    redis: Callable[[], str]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Connect to the services that the settings name, or to those of `headrace up`."""
        settings.mask_secrets()  # a spawned process has not read the environment
        return cls(
            settings,
            lambda name: connector(settings.require_postgres_dsn(), name),
            lambda: from_settings(settings),
            settings.require_redis_url,
        )

    @property
    def lock_timeouts(self) -> LockTimeouts:
        """How long a run waits for locks, and how long a blocking drain may show no progress."""
        return LockTimeouts(self.settings.lock_timeout_ms, self.settings.stuck_after_ms / 1000)

    def retries(self) -> Retries:
        """A new budget of retries for one run."""
        return Retries(self.settings.max_retries)

    def dataset(self, name: str) -> Dataset:
        """The declaration of a dataset, with this deployment's registry; raises DatasetError if it cannot be used."""
        return load_declaration(self.settings.datasets_dir, name).connected(self.settings)
