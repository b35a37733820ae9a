"""A database with Headrace's tables and a stand-in for the loader that stages batches as the loader does."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.marts.build import BuildResult, build
from headrace.marts.dbt import profile_environment
from headrace.settings import Settings
from tests.support.databases import create_database, forget_kept, rows
from tests.support.interrupts import apart
from tests.support.mart_rows import COLUMNS, START, Coordinate
from tests.support.marts_oracle import Version, marts

BOOKKEEPING = ("_generation", "_partition", "_offset", "_timestamp", "_deleted", "_batch_id")


# sessions of dbt that wait for another one's lock
BLOCKED = "application_name = 'headrace-build' and wait_event_type = 'Lock'"

# selects users and jobs and all models that read them, not the functions
ALL_OF_JOBS = ("jobs+,resource_type:model", "users+,resource_type:model")

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
    "events": "event_id, event_time, user_id, event_type, payload::text, schema_version",
    "events_per_minute": "minute, event_type, events",
    "rides": "pulocationid, dolocationid, trip_distance, total_amount, tpep_pickup_datetime, "
    "_generation, _partition, _offset",
    "rides_per_hour": "hour, revenue, rides, distance",
    "telemetry": "event_id, device_id, zone, ts, kpi, value, is_degraded",
    "telemetry_per_minute": "minute, zone, kpi, readings, degraded, min, max, mean",
}


_STAGED = ", ".join(
    [f"staging.{dataset}, staging._replaced_{dataset}" for dataset in COLUMNS]
    + ["headrace.batches, headrace.dead_letters"]
)


@dataclass
class Warehouse:
    """Settings of a migrated database, and what was staged in it."""

    settings: Settings
    dsn: str

    def clear(self) -> None:
        """Back to a database in which nothing was ever staged or built."""
        self.execute(
            f"truncate {_STAGED}, headrace.claims, headrace.builds, headrace.model_states, headrace.model_upstreams; "
            "update headrace.datasets set last_seq = 0, built = gen_random_uuid(); "
            "drop schema marts, marts_log cascade; create schema marts; create schema marts_log; "
            "drop schema if exists marts_dev, marts_dev_log cascade"
        )

    def empty(self) -> None:
        """To a database in which everything is built and nothing is staged: a copy of one, which dbt built once."""
        server_dsn, name = make_conninfo(self.dsn, dbname="postgres"), str(conninfo_to_dict(self.dsn)["dbname"])
        if self.dsn not in _built:
            self.clear()
            self.build()
            forget_kept()
            create_database(server_dsn, f"{name}_built", template=name)
            _built.add(self.dsn)
        else:
            create_database(server_dsn, name, template=f"{name}_built")

    def execute(self, statement: str, *parameters: Any) -> None:
        """Run one statement and commit."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement, parameters or None)

    def tamper(self, statement: str, *parameters: Any) -> None:
        """Run one statement without the triggers that refuse changes of maintained tables by hand."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            connection.execute(statement.encode(), parameters or None)

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return rows(self.dsn, statement, *parameters)

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value that a query gives."""
        return self.query(statement, *parameters)[0][0]

    def stage(
        self, dataset: str, versions: Sequence[Version], gone: Sequence[Coordinate] = (), kind: str = "replay"
    ) -> int:
        """Commit these rows, in one batch and line of the ledger for each partition; return the last line's seq.

        Rows that were at their places are replaced; so are those at the places that are gone, by nothing.
        """
        key, names = COLUMNS[dataset]
        columns = [*([key] if key else []), *names, *BOOKKEEPING]
        coordinates = [(version.generation, version.partition, version.offset) for version in versions]
        batches = {(generation, partition): uuid4() for generation, partition, _ in (*coordinates, *gone)}
        seq = 0
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.cursor()
            cursor.execute("insert into headrace.datasets (dataset) values (%s) on conflict do nothing", (dataset,))
            for generation in {generation for generation, _, _ in coordinates} | {1}:
                cursor.execute(
                    "insert into headrace.generations (dataset, generation, topic, topic_id, is_open, closed_at) "
                    "values (%s, %s, %s, '', false, now()) on conflict do nothing",
                    (dataset, generation, dataset),
                )
            cursor.executemany(
                f"with gone as (delete from staging.{dataset} "
                "where (_generation, _partition, _offset) = (%s, %s, %s) returning *) "
                f"insert into staging._replaced_{dataset} select *, %s from gone",
                [(*coordinate, batches[coordinate[:2]]) for coordinate in (*coordinates, *gone)],
            )
            cursor.executemany(
                f"insert into staging.{dataset} ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})",
                [
                    (
                        *((version.key,) if key else ()),
                        *((version.columns or {}).get(name) for name in names),
                        *(*coordinate, version.timestamp, version.columns is None, batches[coordinate[:2]]),
                    )
                    for coordinate, version in zip(coordinates, versions, strict=True)
                ],
            )
            for (generation, partition), batch_id in batches.items():
                offsets = [
                    offset for *coordinate, offset in (*coordinates, *gone) if coordinate == [generation, partition]
                ]
                staged = sum(coordinate[:2] == (generation, partition) for coordinate in coordinates)
                (seq,) = cursor.execute(
                    "update headrace.datasets set last_seq = last_seq + 1 where dataset = %s returning last_seq",
                    (dataset,),
                ).fetchone() or (0,)
                cursor.execute(
                    "insert into headrace.batches (batch_id, dataset, seq, generation, partition, start_offset, "
                    "end_offset, staged, started_at, kind) values (%s, %s, %s, %s, %s, %s, %s, %s, now(), %s)",
                    (batch_id, dataset, seq, generation, partition, min(offsets), max(offsets) + 1, staged, kind),
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

    def events(self, *rows: tuple[Any, ...], partition: int = 0) -> int:
        """Stage events as (offset, event_id, columns or None); their time rises with the offset."""
        return self.stage("events", [_version(partition, *row) for row in rows])

    def rides(self, *rows: tuple[int, Mapping[str, Any] | None], partition: int = 0) -> int:
        """Stage rides as (offset, columns or None)."""
        return self.stage("rides", [_version(partition, offset, None, columns) for offset, columns in rows])

    def telemetry(self, *rows: tuple[Any, ...]) -> int:
        """Stage readings as (offset, event_id, columns)."""
        return self.stage("telemetry", [_version(0, *row) for row in rows])

    def build(self, **options: Any) -> BuildResult:
        """`headrace build` in this process, without the data tests unless asked for."""
        from tests.support.warm_dbt import spare_dbt

        spare_dbt()
        return build(self.settings, **{"tests": False, **options})

    def marts(self, schema: str = "marts") -> dict[str, set[tuple[Any, ...]]]:
        """What the marts hold."""
        return {name: set(self.query(f"select {columns} from {schema}.{name}")) for name, columns in MARTS.items()}

    def expected(self) -> dict[str, set[tuple[Any, ...]]]:
        """What the oracle says of the rows that are staged."""
        return marts(**{dataset: self.versions(dataset) for dataset in COLUMNS})

    def assert_right(self, *names: str) -> None:
        """Every mart, or each of these, is what the oracle says."""
        found, expected = self.marts(), self.expected()
        for name in names or MARTS:
            assert found[name] == expected[name], name

    def claims(self) -> dict[tuple[str, str], int]:
        """Model and dataset to the last batch that it has built."""
        rows = self.query("select identifier, dataset, to_seq from headrace.claims where schema = 'marts'")
        return {(model, dataset): to_seq for model, dataset, to_seq in rows}

    def wait_for_sessions(self, condition: str, count: int = 1, seconds: float = 60) -> None:
        """Until so many other sessions of this database are in pg_stat_activity with this condition."""
        deadline = time.monotonic() + seconds
        while self.sessions(condition) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"found no {count} sessions with {condition} in {seconds} s")
            time.sleep(0.05)

    def sessions(self, condition: str) -> int:
        """How many other sessions of this database are in pg_stat_activity with this condition."""
        found: int = self.value(
            "select count(*) from pg_stat_activity "
            f"where datname = current_database() and pid <> pg_backend_pid() and {condition}"
        )
        return found

    def environment(self) -> dict[str, str]:
        """What a shell needs so that `dbt` finds this database."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return profile_environment(self.settings, connection)

    @contextmanager
    def dbt(self, *arguments: str) -> Iterator[BaseProcess]:
        """The `dbt` command in a process of its own; its exit status is dbt's."""
        from tests.support.warm_dbt import run_dbt

        folder = self.settings.home / f"dbt-{uuid4().hex[:8]}"
        command = [arguments[0], *self._options(folder), *arguments[1:]]
        with apart(run_dbt, command, self.environment()) as process:
            yield process

    def run_dbt(self, *arguments: str) -> tuple[bool, str]:
        """dbt with any arguments, in this process; whether it succeeded, and the messages of what did not."""
        from tests.support.warm_dbt import spared_runner  # dbt takes 2.5 s to import

        saved = dict(os.environ)
        os.environ.update(self.environment())
        try:
            options = self._options(self.settings.home / "dbt" / "trial")
            outcome = spared_runner().invoke([arguments[0], *options, *arguments[1:]])
        finally:
            os.environ.clear()
            os.environ.update(saved)
        if outcome.exception:
            return False, str(outcome.exception)
        messages = [str(result.message) for result in outcome.result.results if result.status in ("error", "fail")]  # type: ignore[union-attr]
        return outcome.success, "\n".join(messages)

    def refreshed_marts(self) -> dict[str, set[tuple[Any, ...]]]:
        """What the marts would hold after a full refresh: it is made in the developer's schema, and claims there."""
        folder = self.settings.home / "dbt-by-hand"  # its own parse: another target's would be thrown away
        parsed = folder / "partial_parse.msgpack"
        again = ("--partial-parse-file-path", str(parsed)) if parsed.exists() else ()
        refreshed = self.run_dbt("run", "--target", "dev", "--full-refresh", "--target-path", str(folder), *again)
        assert refreshed == (True, ""), refreshed[1]
        return self.marts("marts_dev")

    def _options(self, folder: Path) -> list[str]:
        project, parsed = str(self.settings.dbt_dir), self.settings.home / "dbt" / "partial_parse.msgpack"
        return [
            *("--project-dir", project, "--profiles-dir", project, "--target", "prod"),
            *("--log-level", "none", "--no-write-json"),
            *("--target-path", str(folder), "--log-path", str(folder)),
            *(["--partial-parse-file-path", str(parsed)] if parsed.exists() else []),
        ]

    def versions(self, dataset: str) -> list[Version]:
        key, names = COLUMNS[dataset]
        rows = self.query(
            "select _generation, _partition, _offset, _timestamp, _deleted, "
            f"{key or '(_generation, _partition, _offset)::text'}, "
            f"{', '.join('payload::text' if name == 'payload' else name for name in names)} from staging.{dataset}"
        )
        return [
            Version(row[0], row[1], row[2], row[3], row[5], None if row[4] else dict(zip(names, row[6:], strict=True)))
            for row in rows
        ]


def _version(partition: int, offset: int, key: Any, columns: Mapping[str, Any] | None) -> Version:
    return Version(1, partition, offset, START + timedelta(seconds=offset), key, columns)


_shared: dict[str, Warehouse] = {}
_built: set[str] = set()  # databases of which a copy was made when everything was built


def shared_warehouse(postgres_dsn: str, home: Path) -> Warehouse:
    """The one database of all build tests, made at its first use: dbt parses the project once per database.

    It goes with its server.
    """
    if postgres_dsn not in _shared:
        dsn = create_database(postgres_dsn, "build")
        settings = Settings(home=home, postgres_dsn=dsn)
        initialise(Deployment.from_settings(settings))
        warehouse = _shared[postgres_dsn] = Warehouse(settings, dsn)
        for dataset in COLUMNS:
            warehouse.execute("insert into headrace.datasets (dataset) values (%s) on conflict do nothing", dataset)
    return _shared[postgres_dsn]
