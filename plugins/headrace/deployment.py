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

    connect: from an application name to a function that opens Postgres connections. kafka: a function that gives
    kafka-python's client settings, called only for datasets that come from Kafka. redis: likewise, a URL.
    """

    settings: Settings
    connect: Callable[[str], Connect]
    kafka: Callable[[], Mapping[str, Any]]
    redis: Callable[[], str]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The services that the settings or `headrace up` name."""
        settings.mask_secrets()  # in a spawned process too
        return cls(
            settings,
            lambda name: connector(settings.require_postgres_dsn(), name),
            lambda: from_settings(settings),
            settings.require_redis_url,
        )

    @property
    def lock_timeouts(self) -> LockTimeouts:
        """How long a run waits for locks."""
        return LockTimeouts(self.settings.lock_timeout_ms, self.settings.stuck_after_ms / 1000)

    def retries(self) -> Retries:
        """A run's budget of retries."""
        return Retries(self.settings.max_retries)

    def dataset(self, name: str) -> Dataset:
        """The declaration of a dataset, whose formats find this deployment's registry."""
        return load_declaration(self.settings.datasets_dir, name).connected(self.settings)
