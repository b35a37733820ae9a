"""A migrated database with datasets of its own: what most integration tests work on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class Stage:
    """A deployment of the test's own: a database with Headrace's tables, and datasets_dir to declare in."""

    deployment: Deployment
    dsn: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _stage, (self.deployment.settings, self.dsn)  # a process of its own connects by itself

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, read over a connection of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement, parameters).fetchall()

    def execute(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value that a query gives."""
        return self.query(statement, *parameters)[0][0]


def _stage(settings: Settings, dsn: str) -> Stage:
    return Stage(Deployment.from_settings(settings), dsn)


def telemetry_stage(dsn: str, redis_url: str, stream: str, datasets_dir: Path, home: Path) -> Stage:
    """A deployment whose one dataset is telemetry, its tables made."""
    datasets_dir.mkdir()
    declared = (Settings().datasets_dir / "telemetry.py").read_text()
    assert 'stream="telemetry_stream"' in declared
    (datasets_dir / "telemetry.py").write_text(declared.replace('stream="telemetry_stream"', f'stream="{stream}"'))
    settings = Settings(home=home, postgres_dsn=dsn, redis_url=redis_url, datasets_dir=datasets_dir, batch_rows=20)
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    return Stage(deployment, dsn)


def with_batch_rows(stage: Stage, rows: int) -> Stage:
    """The same in batches of so many records."""
    return with_settings(stage, batch_rows=rows)


def with_settings(stage: Stage, **settings: Any) -> Stage:
    """The same, configured otherwise."""
    return Stage(Deployment.from_settings(replace(stage.deployment.settings, **settings)), stage.dsn)


def offline_stage(database: str, home: Path) -> Stage:
    """A migrated database with the project's datasets, and neither Kafka nor Redis."""
    deployment = Deployment.from_settings(Settings(home=home, postgres_dsn=database))
    initialise(deployment)
    return Stage(deployment, database)
