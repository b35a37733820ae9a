"""A database that is full, restricted or changed: the drain fails in one line, changes nothing, and continues later."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError, DatabaseUnavailable, DatasetError, HeadraceError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.repair.generations import reset
from headrace.sample.generate import generate_jobs
from headrace.sample.produce import produce
from tests.support.interrupts import at
from tests.support.ledger_checks import assert_ledger, totals
from tests.support.stage import Stage

RECORDS = 400
BEFORE = 100


@dataclass(frozen=True, slots=True)
class InfrastructureFault:
    """What is done to a database, how the drain then ends, and how it is undone."""

    statements: tuple[str, ...]
    error: type[HeadraceError]
    message: str
    repair: tuple[str, ...]


DROP_LOCATION = ("alter table staging.jobs drop column location",)
ADD_LOCATION = ("alter table staging.jobs add column location text",)

# before the plan, as the role `loader` that owns nothing; {database} and {role} are the test's own
FAULTS = {
    "insert_revoked": InfrastructureFault(
        ("revoke insert on staging.jobs from {role}",),
        DatabaseError,
        "postgres: permission denied for table jobs; nothing was changed; repair it and run the same command again",
        ("grant insert on staging.jobs to {role}",),
    ),
    "dead_letters_revoked": InfrastructureFault(
        ("revoke insert on headrace.dead_letters from {role}",),
        DatabaseError,
        "postgres: permission denied for table dead_letters; nothing was changed",
        ("grant insert on headrace.dead_letters to {role}",),
    ),
    "schema_revoked": InfrastructureFault(
        ("revoke usage on schema headrace from {role}",),
        DatabaseError,
        "postgres: permission denied for schema headrace",
        ("grant usage on schema headrace to {role}",),
    ),
    "column_dropped": InfrastructureFault(
        DROP_LOCATION,
        DatasetError,
        'staging.jobs: has no column location, which the contract requires; .* alter table staging."jobs" add column',
        ADD_LOCATION,
    ),
    "bookkeeping_column_dropped": InfrastructureFault(
        ("alter table staging.jobs drop column _headers",),
        DatasetError,
        'staging.jobs: found no column _headers, expected jsonb; .* staging."jobs" add column "_headers" jsonb',
        ("alter table staging.jobs add column _headers jsonb",),
    ),
    "column_retyped": InfrastructureFault(
        ("alter table staging.jobs alter column userid type integer using 1",),
        DatasetError,
        'staging.jobs.userid: found integer, expected bigint; .* alter column "userid" type bigint',
        ("alter table staging.jobs alter column userid type bigint",),
    ),
    "column_narrowed": InfrastructureFault(
        ("alter table staging.jobs alter column revenue type numeric(10,1)",),
        DatasetError,
        r"staging.jobs.revenue: found numeric\(10,1\), expected numeric;",
        ("alter table staging.jobs alter column revenue type numeric",),
    ),
    "constraint_added": InfrastructureFault(
        ("alter table staging.jobs add constraint short check (length(location) < 2) not valid",),
        DatabaseError,
        'postgres: new row for relation "jobs" violates check constraint "short"',
        ("alter table staging.jobs drop constraint short",),
    ),
    "out_of_connections": InfrastructureFault(
        ("alter role {role} connection limit 0",),
        DatabaseUnavailable,
        'postgres: .*too many connections for role "headrace_test_loader".* pg_stat_activity shows who holds them: .*',
        ("alter role {role} connection limit -1",),
    ),
    "login_revoked": InfrastructureFault(
        ("alter role {role} nologin",),
        HeadraceError,
        "postgres: .*not permitted to log in",
        ("alter role {role} login",),
    ),
    "ledger_renamed": InfrastructureFault(
        ("alter table headrace.batches rename to batches_away",),
        DatabaseError,
        'postgres: relation "headrace.batches" does not exist .*; expected Headrace\'s tables; run `headrace init`',
        ("alter table headrace.batches_away rename to batches",),
    ),
}  # fmt: skip

# while the drain runs, behind the plan's own checks
SUDDEN_FAULTS = {
    "column_dropped": InfrastructureFault(
        DROP_LOCATION,
        DatabaseError,
        'postgres: column "location" of relation "jobs" does not exist; nothing was changed; repair it',
        ADD_LOCATION,
    ),
    "column_retyped": FAULTS["column_retyped"],
    "column_narrowed": FAULTS["column_narrowed"],
    "column_retyped_to_the_same_size": InfrastructureFault(
        ("alter table staging.jobs alter column userid type double precision",),
        DatasetError,
        "staging.jobs.userid: found double precision, expected bigint",
        ("alter table staging.jobs alter column userid type bigint",),
    ),
    "insert_revoked": FAULTS["insert_revoked"],
}


@pytest.fixture
def loader(stage: Stage, postgres_dsn: str) -> Iterator[Stage]:
    """The stage as seen by a role that may do what a drain does and owns nothing."""
    role, password = "headrace_test_loader", "not-a-secret"
    stage.execute(
        f"create role {role} login password '{password}'",
        f"grant connect on database {conninfo_to_dict(stage.dsn)['dbname']} to {role}",
        f"grant usage on schema headrace, staging to {role}",
        f"grant select, insert, update on all tables in schema headrace to {role}",
        f"grant delete on headrace.samples, headrace.leases to {role}",
        f"grant select, insert on all tables in schema staging to {role}",
    )
    dsn = make_conninfo(stage.dsn, user=role, password=password, passfile="/dev/null")
    yield Stage(Deployment.from_settings(replace(stage.deployment.settings, postgres_dsn=dsn)), stage.dsn)
    stage.execute(f"drop owned by {role}", f"drop role {role}")


@pytest.mark.parametrize("name", FAULTS)
def test_drain_of_a_broken_database_fails_in_one_line_and_goes_on_after_the_repair(
    loader: Stage, postgres_dsn: str, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    _produce_and_begin(loader, tmp_path)
    before = totals(loader)

    _execute(postgres_dsn, loader, fault.statements)
    _assert_refused(lambda: drain_dataset(loader.deployment, "jobs"), fault)
    _execute(postgres_dsn, loader, fault.repair)

    assert totals(loader) == before
    _finish(loader)


@pytest.mark.parametrize("name", SUDDEN_FAULTS)
def test_drain_whose_table_changes_under_it_fails_in_one_line_and_goes_on_after_the_repair(
    loader: Stage, postgres_dsn: str, tmp_path: Path, name: str
) -> None:
    fault = SUDDEN_FAULTS[name]
    _produce_and_begin(loader, tmp_path)
    before = totals(loader)
    dataset = loader.deployment.dataset("jobs")
    planned = plan(loader.deployment, dataset)

    breaks = at("fetched", lambda: _execute(postgres_dsn, loader, fault.statements), occurrence=1)
    _assert_refused(lambda: drain_plan(loader.deployment, dataset, planned, options=RunOptions(barrier=breaks)), fault)
    _execute(postgres_dsn, loader, fault.repair)

    assert totals(loader) == before
    _finish(loader)


def test_drain_whose_table_was_dropped_refuses_until_it_is_reset(stage: Stage, tmp_path: Path) -> None:
    _produce_and_begin(stage, tmp_path)
    ledger = stage.query("select * from headrace.batches order by seq")
    staged = stage.value("select sum(staged) from headrace.batches")
    stage.execute("drop table staging.jobs cascade")
    message = f"staging.jobs: found no table, expected the {staged} rows .* `headrace reset jobs`"
    for refused in (lambda: drain_dataset(stage.deployment, "jobs"), lambda: initialise(stage.deployment)):
        _assert_refused(refused, InfrastructureFault((), DatasetError, message, ()))
    assert stage.query("select * from headrace.batches order by seq") == ledger
    reset(stage.deployment, stage.deployment.dataset("jobs"))
    _finish(stage)


@pytest.mark.parametrize("table", ["staging.jobs", "headrace.dead_letters"])
def test_drain_into_a_full_disk_fails_in_one_line_and_goes_on_when_there_is_room(
    stage: Stage, tmp_path: Path, table: str
) -> None:
    with _small_disk(stage) as (disk, tablespace):
        _produce_and_begin(stage, tmp_path)
        indexes = stage.query("select indexrelid::regclass::text from pg_index where indrelid = %s::regclass", table)
        stage.execute(
            f"alter table {table} set tablespace {tablespace}",
            *(f"alter index {index} set tablespace {tablespace}" for (index,) in indexes),
        )
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        message = "postgres: could not extend file .*: No space left on device .*; nothing was changed"
        fault = InfrastructureFault((), DatabaseError, message, ())
        _assert_refused(lambda: drain_dataset(stage.deployment, "jobs"), fault)
        filler.unlink()

        # a batch that found room on the table's last page is there whole, the one that did not is not there at all
        assert_ledger(stage)
        assert len(totals(stage)["coordinates"]) < RECORDS
        _finish(stage)


def _produce_and_begin(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "jobs.kafka"
    path.write_bytes(b"".join(generate_jobs(RECORDS, 3, 20, stage.deployment.settings.data_dir / "users.ndjson")))
    produce(stage.deployment, stage.deployment.dataset("jobs"), path)
    drain_dataset(stage.deployment, "jobs", max_records=BEFORE)


def _finish(stage: Stage) -> None:
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage)
    assert len(totals(stage)["coordinates"]) == RECORDS


def _assert_refused(drain: Callable[[], object], fault: InfrastructureFault) -> None:
    with pytest.raises(fault.error) as caught:
        drain()
    assert re.match(fault.message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def _execute(postgres_dsn: str, stage: Stage, statements: tuple[str, ...]) -> None:
    for statement in statements:
        text = statement.format(database=_database(stage.dsn), role="headrace_test_loader")
        stage.execute(text)


def _database(dsn: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])


@contextmanager
def _small_disk(stage: Stage) -> Iterator[tuple[Path, str]]:
    """A file system of 8 MB and a tablespace on it; needs root, as only root mounts one."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a tmpfs of 8 MB")
    disk = Path(tempfile.mkdtemp(prefix="headrace-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        disk.rmdir()
        pytest.skip(f"needs to mount a tmpfs of 8 MB: {mounted.stderr.strip()}")
    tablespace = f"small_{os.getpid()}_{disk.name[-4:].lower()}".replace("-", "_")
    try:
        folder = disk / "data"
        folder.mkdir()
        owner = Path(stage.value("select current_setting('data_directory')")).stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        disk.chmod(0o755)
        stage.execute(f"create tablespace {tablespace} location '{folder}'")
        yield disk, tablespace
    finally:
        stage.execute("drop schema staging, headrace cascade", f"drop tablespace if exists {tablespace}")
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()
