"""A database with Headrace's tables and a stand-in for the loader that stages batches as the loader does."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.build import BuildResult, build
from headrace.dbt_runner import profile_environment
from headrace.ingest import Deployment, initialise
from headrace.settings import Settings
from tests.integration.marts_oracle import Version, marts

JOB_COLUMNS = ("jobcreatedate", "jobdate", "jobstatus", "location", "revenue", "servicename", "userid")
USER_COLUMNS = ("location",)
START = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)

# the columns of each mart, in the oracle's order
MARTS = {
    "users": "userid, location",
    "jobs": "jobidentifier, userid, jobcreatedate, jobdate, jobstatus, location, revenue, reported_revenue, "
    "servicename",
    "jobs_per_minute": "minute, jobs, revenue",
    "visitor_revenues": "location, userid, revenue",
    "top_users_by_location": "location, rank, userid, revenue",
    "latest_jobs_by_location": "location, jobidentifier, userid, jobstatus, revenue, jobdate, rank",
    "latest_jobs_by_service": "servicename, jobidentifier, userid, jobstatus, revenue, jobdate, rank",
}


def job(
    location: str = "A",
    userid: int = 1,
    revenue: str = "1.00",
    minute: float = 0,
    status: str = "SUCCESS",
    service: str = "Driver",
) -> dict[str, Any]:
    """A job's columns; `minute` after START is when it was created, a day later it was done."""
    created = START + timedelta(minutes=minute)
    return {
        "jobcreatedate": created,
        "jobdate": created + timedelta(days=1),
        "jobstatus": status,
        "location": location,
        "revenue": Decimal(revenue),
        "servicename": service,
        "userid": userid,
    }


@dataclass
class Warehouse:
    """Settings of a migrated database, and what was staged in it."""

    settings: Settings
    dsn: str

    def clear(self) -> None:
        """Back to a database in which nothing was ever staged or built."""
        self.execute(
            "truncate staging.jobs, staging.jobs_replaced, staging.users, staging.users_replaced, headrace.batches, "
            "headrace.claims, headrace.builds, headrace.dead_letters; "
            "update headrace.datasets set last_seq = 0, built = gen_random_uuid(); "
            "drop schema marts cascade; create schema marts; drop schema if exists marts_dev cascade"
        )

    def execute(self, statement: str, *parameters: Any) -> None:
        """Run one statement and commit."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement, parameters or None)

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement, parameters or None).fetchall()

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value that a query gives."""
        return self.query(statement, *parameters)[0][0]

    def stage(self, dataset: str, versions: Sequence[Version], kind: str = "replay") -> int:
        """Commit one batch with these rows and its line in the ledger; rows that were there are replaced."""
        key, names = ("jobidentifier", JOB_COLUMNS) if dataset == "jobs" else ("userid", USER_COLUMNS)
        batch_id = uuid4()
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.cursor()
            cursor.execute("insert into headrace.datasets (dataset) values (%s) on conflict do nothing", (dataset,))
            for generation in {version.generation for version in versions} | {1}:
                cursor.execute(
                    "insert into headrace.generations (dataset, generation, topic, topic_id, is_open, closed_at) "
                    "values (%s, %s, %s, '', false, now()) on conflict do nothing",
                    (dataset, generation, dataset),
                )
            for version in versions:
                place = (version.generation, version.partition, version.offset)
                cursor.execute(
                    f"with gone as (delete from staging.{dataset} "
                    "where (_generation, _partition, _offset) = (%s, %s, %s) returning *) "
                    f"insert into staging.{dataset}_replaced select *, %s from gone",
                    (*place, batch_id),
                )
                columns = version.columns or {}
                cursor.execute(
                    f"insert into staging.{dataset} ({key}, {', '.join(names)}, _generation, _partition, _offset, "
                    f"_timestamp, _deleted, _batch_id) values ({', '.join(['%s'] * (len(names) + 7))})",
                    (
                        *(version.key, *(columns.get(name) for name in names)),
                        *(*place, version.timestamp, version.columns is None, batch_id),
                    ),
                )
            (seq,) = cursor.execute(
                "update headrace.datasets set last_seq = last_seq + 1 where dataset = %s returning last_seq", (dataset,)
            ).fetchone() or (0,)
            cursor.execute(
                "insert into headrace.batches (batch_id, dataset, seq, generation, partition, start_offset, "
                "end_offset, staged, started_at, kind) values (%s, %s, %s, 1, 0, 0, %s, %s, now(), %s)",
                (batch_id, dataset, seq, len(versions), len(versions), kind),
            )
        return int(seq)

    def jobs(self, *rows: tuple[Any, ...], partition: int = 0) -> int:
        """Stage jobs as (offset, key, columns or None); their time rises with the offset."""
        return self.stage("jobs", [_version(partition, *row) for row in rows])

    def users(self, *rows: tuple[Any, ...]) -> int:
        """Stage users as (offset, userid, location or None)."""
        return self.stage(
            "users", [_version(0, offset, key, {"location": home} if home else None) for offset, key, home in rows]
        )

    def build(self, **options: Any) -> BuildResult:
        """`headrace build` in this process, without the data tests unless asked for."""
        return build(self.settings, **{"tests": False, **options})

    def marts(self, schema: str = "marts") -> dict[str, set[tuple[Any, ...]]]:
        """What the marts hold."""
        return {name: set(self.query(f"select {columns} from {schema}.{name}")) for name, columns in MARTS.items()}

    def expected(self) -> dict[str, set[tuple[Any, ...]]]:
        """What the oracle says of the rows that are staged."""
        return marts(
            self._versions("jobs", "jobidentifier", JOB_COLUMNS), self._versions("users", "userid", USER_COLUMNS)
        )

    def assert_right(self) -> None:
        """Every mart is what the oracle says."""
        found, expected = self.marts(), self.expected()
        for name in MARTS:
            assert found[name] == expected[name], name

    def claims(self) -> dict[tuple[str, str], int]:
        """Model and dataset to the last batch that it has built."""
        rows = self.query("select identifier, dataset, to_seq from headrace.claims where schema = 'marts'")
        return {(model, dataset): to_seq for model, dataset, to_seq in rows}

    def environment(self) -> dict[str, str]:
        """What a shell needs so that `dbt` finds this database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return profile_environment(self.settings, connection)

    @contextmanager
    def dbt(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The `dbt` command as an analyst would run it, in a process and folders of its own."""
        folder = self.settings.home / f"dbt-{uuid4().hex[:8]}"
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "dbt"),
                *arguments,
                "--target-path",
                str(folder),
                "--log-path",
                str(folder),
            ],
            cwd=self.settings.dbt_dir,
            env={**os.environ, **self.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def run_dbt(self, *arguments: str) -> tuple[bool, str]:
        """dbt with any arguments, in this process; whether it succeeded, and the messages of what did not."""
        from dbt.cli.main import dbtRunner

        saved = dict(os.environ)
        os.environ.update(self.environment())
        try:
            folder, project = str(self.settings.home / "dbt" / "trial"), str(self.settings.dbt_dir)
            options = [
                "--project-dir",
                project,
                "--profiles-dir",
                project,
                "--target-path",
                folder,
                "--log-path",
                folder,
            ]
            outcome = dbtRunner().invoke([arguments[0], *options, "--log-level", "none", *arguments[1:]])
        finally:
            os.environ.clear()
            os.environ.update(saved)
        if outcome.exception:
            return False, str(outcome.exception)
        messages = [str(result.message) for result in outcome.result.results if result.status in ("error", "fail")]  # type: ignore[union-attr]
        return outcome.success, "\n".join(messages)

    def _versions(self, dataset: str, key: str, names: Sequence[str]) -> list[Version]:
        rows = self.query(
            f"select _generation, _partition, _offset, _timestamp, {key}, _deleted, {', '.join(names)} "
            f"from staging.{dataset}"
        )
        return [
            Version(
                generation,
                partition,
                offset,
                timestamp,
                key,
                None if deleted else dict(zip(names, columns, strict=True)),
            )
            for generation, partition, offset, timestamp, key, deleted, *columns in rows
        ]


def _version(partition: int, offset: int, key: Any, columns: Mapping[str, Any] | None) -> Version:
    return Version(1, partition, offset, START + timedelta(seconds=offset), key, columns)


def make_warehouse(postgres_dsn: str, home: Path, name: str) -> Iterator[Warehouse]:
    """A database of this name with Headrace's tables; dropped at the end."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database build_{name}".encode())
    info = conninfo_to_dict(postgres_dsn)
    settings = Settings(home=home, postgres_dsn=make_conninfo("", **{**info, "dbname": f"build_{name}"}))
    initialise(Deployment.from_settings(settings))
    yield Warehouse(settings, settings.require_postgres_dsn())
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"drop database build_{name} with (force)".encode())


class RandomBatches:
    """Batches of everything that can happen to a key, repeatable by seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next = {"jobs": [0, 0, 0], "users": [0]}
        self._held_back: dict[str, list[tuple[int, int, int]]] = {"jobs": [], "users": []}
        self._written: dict[str, list[tuple[int, int, int]]] = {"jobs": [], "users": []}
        self._generation = {"jobs": 1, "users": 1}

    def batch(self, dataset: str) -> list[Version]:
        """New keys, changed and moved ones, tombstones, late rows, replayed offsets, reloads, new generations."""
        rng = self._random
        if rng.random() < 0.05:
            self._generation[dataset] += 1
            self._next[dataset] = [0] * len(self._next[dataset])
        versions: dict[tuple[int, int, int], Version] = {}
        for _ in range(rng.randint(0, 6)):
            place = self._place(dataset)
            late = rng.choice([0, 0, 0, 10_000])
            timestamp = START + timedelta(seconds=rng.randint(0, 300) - late) if rng.random() < 0.95 else None
            versions[place] = Version(*place, timestamp, *(self._job() if dataset == "jobs" else self._user()))
        self._written[dataset] += versions
        return list(versions.values())

    def _place(self, dataset: str) -> tuple[int, int, int]:
        rng = self._random
        if self._held_back[dataset] and rng.random() < 0.3:  # a dead letter that is replayed
            return self._held_back[dataset].pop(rng.randrange(len(self._held_back[dataset])))
        if self._written[dataset] and rng.random() < 0.1:  # a reload
            return rng.choice(self._written[dataset])
        partition = rng.randrange(len(self._next[dataset]))
        offset = self._next[dataset][partition]
        self._next[dataset][partition] += 1
        place = (self._generation[dataset], partition, offset)
        if rng.random() < 0.2:
            self._held_back[dataset].append(place)
            return self._place(dataset)
        return place

    def _job(self) -> tuple[str, dict[str, Any] | None]:
        rng = self._random
        key = f"J{rng.randrange(40)}"
        if rng.random() < 0.12:
            return key, None
        return key, job(
            location=rng.choice("ABCDEF"),
            userid=rng.randrange(20),
            revenue=str(Decimal(rng.randint(0, 500)) / 100),
            minute=rng.choice([0, 0.999999, 1, 1.5, 2, rng.randint(0, 10), -10_000]),
            status=rng.choice(["SUCCESS", "SUCCESS", "NO SUCCESS"]),
            service=rng.choice(["Driver", "Courier"]),
        )

    def _user(self) -> tuple[int, dict[str, Any] | None]:
        rng = self._random
        return rng.randrange(20), None if rng.random() < 0.15 else {"location": rng.choice("ABCDEF")}
