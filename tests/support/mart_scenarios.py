"""Sequences of commits and builds that a wrong materialization gets wrong, each in a fixed order.

Each takes a site, in which everything has been built, and ends with a check whose message says what went wrong.
Sessions are ordered by locks, never by sleeps: a builder waits at a gate, an advisory lock that the test holds.
"""

from collections.abc import Callable
from dataclasses import replace

import psycopg

from tests.support.mart_rows import job
from tests.support.mart_scenario_models import AFTER_THE_STATE, AT_THE_END
from tests.support.mart_site import Site
from tests.support.random_project import SCHEMA
from tests.support.random_rounds import expect_success, wait_until
from tests.support.warehouse import BLOCKED

SESSIONS = "datname = current_database() and application_name = 'headrace-build'"
Scenario = Callable[[Site], None]
TRIM = ("--vars", '{"log_rows_max": 0}')  # a log is emptied by every build that writes


def moved_rows(site: Site) -> None:
    """Rows that leave a grain change it too: a job moves, another is deleted, a user moves."""
    site.jobs((0, job("B", 0, "9.00")), (1, None))
    site.users((2, "A"), (3, None))
    site.build()
    site.expect_equal("after rows have left their grains")


def images(site: Site) -> None:
    """A value that is equal and looks different is another value: 1.5 is not 1.50."""
    site.jobs(*((number, job("ABCF"[number % 4], number % 9, "1.5", number % 5)) for number in range(24)))
    site.build()
    site.expect_equal("after 1.50 has become 1.5")


def null_grains(site: Site) -> None:
    """Rows whose grain is null belong to one, like any other."""
    site.jobs((3, job("F", 3, "7.00")), (50, job("F", 5, "2.00")), (7, None))
    site.build()
    site.expect_equal("after a change in the null grain")


def swapped_ranks(site: Site) -> None:
    """Two rows swap their unique ranks."""
    site.jobs((4, job("A", 4, "100.00")), (8, job("A", 8, "99.00")))
    site.build()
    site.jobs((4, job("A", 4, "99.00")), (8, job("A", 8, "100.00")))
    site.build()
    site.expect_equal("after two ranks were swapped")


def trimmed_log(site: Site) -> None:
    """A log is emptied before a reader has seen it: the reader builds its whole table."""
    site.change()
    site.build("jobs", more=TRIM)
    site.build()
    site.expect_equal("after a log was emptied that by_location had not seen")


def killed_after_the_trim(site: Site) -> None:
    """A builder is killed at its last statement: of its transaction, nothing has happened."""
    site.change()
    site.build("jobs")
    site.change()
    with site.gate() as gate, site.project.apart("run", *TRIM, "--select", "jobs", "--threads", "1") as build:
        site.blocked()
        build.kill()
        build.join()
        gate.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {SESSIONS}".encode())
        wait_until(lambda: not site.project.warehouse.sessions(SESSIONS), "the killed builder's session ends")
    site.build("by_location")
    site.build()
    site.expect_equal("after a builder was killed at the end of its transaction")


def trimmed_under_a_reader(site: Site) -> None:
    """A log is emptied between two statements of a reader: it reads the state of its snapshot."""
    site.change()
    site.build("jobs")
    _trim_while_gated_reads(site)
    site.expect_equal("after a log was emptied in the middle of a reader's build")


def trimmed_under_a_first_reader(site: Site) -> None:
    """The same while a reader is built for the first time: nothing has counted it yet."""
    site.project.warehouse.execute(
        f"drop table {SCHEMA}.gated; delete from headrace.model_states where identifier = 'gated'"
    )
    _trim_while_gated_reads(site)
    site.jobs((2, None))
    site.build()
    site.expect_equal("after a log was emptied in the middle of a reader's first build")


def _trim_while_gated_reads(site: Site) -> None:
    with site.gate(AFTER_THE_STATE) as gate, site.building("--select", "gated"):
        site.blocked()
        site.change()
        with site.project.apart("run", *TRIM, "--select", "jobs", "--threads", "1") as build:
            expect_success(build, "dbt")
        gate.execute(f"select pg_advisory_unlock({AFTER_THE_STATE})".encode())
    site.build()


def committed_between(site: Site) -> None:
    """Batches are committed, and jobs is built, while a model that reads it is in the middle of its build."""
    site.change()
    site.build("jobs")
    with psycopg.connect(site.project.warehouse.dsn) as gate:
        gate.execute(f"lock table {SCHEMA}.by_location in share mode".encode())
        with site.building("--select", "by_location"):
            site.blocked()
            site.change()
            with site.project.apart("run", "--select", "jobs", "--threads", "1") as build:
                expect_success(build, "dbt")
            gate.rollback()
    site.build()
    site.expect_equal("after jobs was built between two statements of its reader's build")


def committed_between_grains(site: Site) -> None:
    """A row moves between two statements of a reader: one has computed the grain that it left, one its new grain."""
    site.jobs((0, job("A", 0, "11.00")), (3, job("F", 3, "11.00")))
    site.build("jobs")
    with site.gate(AFTER_THE_STATE) as gate, site.building("--select", "placed"):
        site.blocked()
        site.jobs((0, job("F", 0, "12.00")))
        with site.project.apart("run", "--select", "jobs", "--threads", "1") as build:
            expect_success(build, "dbt")
        gate.execute(f"select pg_advisory_unlock({AFTER_THE_STATE})".encode())
    site.build()
    site.expect_equal("after a row moved between two statements of a reader's build")


def swapped_upstream(site: Site) -> None:
    """A table is swapped while a build waits for it: the build reads the new one."""
    _while_rates_is_locked(
        site,
        "create table outside.fresh as select location, rate + 1 as rate from outside.rates; "
        "drop table outside.rates; alter table outside.fresh rename to rates",
        "swapped",
    )


def truncated_upstream(site: Site) -> None:
    """A table is truncated and filled while a build waits for it."""
    _while_rates_is_locked(
        site,
        "create temporary table kept as select * from outside.rates; truncate outside.rates; "
        "insert into outside.rates select location, rate + 1 from kept",
        "truncated and filled",
    )


def _while_rates_is_locked(site: Site, statements: str, what: str) -> None:
    with psycopg.connect(site.project.warehouse.dsn) as swap:
        swap.execute("lock table outside.rates in access exclusive mode")
        swap.execute(statements.encode())
        with site.building("--select", "priced"):
            site.blocked()
            swap.commit()
    site.expect_equal(f"after an upstream was {what} under a build")


def own_turn_first(site: Site) -> None:
    """A build that waits for an upstream has its own turn: a second one waits for the turn, and holds no upstream."""
    site.change()
    site.build("jobs")
    with psycopg.connect(site.project.warehouse.dsn) as gate:
        gate.execute(f"lock table {SCHEMA}.jobs in access exclusive mode".encode())
        with site.building("--select", "by_user"):
            site.blocked()
            held = site.value(
                "select count(*) from pg_locks where granted and mode = 'ShareRowExclusiveLock' "
                "and pid in (select pid from pg_locks where not granted) and locktype = 'relation'"
            )
            gate.rollback()
    site.build()
    assert held == 1, f"a build that waits for an upstream holds {held} turns, expected its own: builds can deadlock"
    site.expect_equal("after a build has waited for its upstream")


def two_builds(site: Site) -> None:
    """Two builds of one model at once: the second goes on from what the first has committed."""
    site.change()
    with (
        site.gate() as gate,
        site.project.apart("run", "--select", "jobs", "--threads", "1") as one,
        site.project.apart("run", "--select", "jobs", "--threads", "1") as other,
    ):
        site.blocked(2)
        site.change()
        gate.execute(f"select pg_advisory_unlock({AT_THE_END})".encode())
        for build in (one, other):
            expect_success(build, "one of two builds of jobs")
    site.build()
    site.expect_equal("after two builds of jobs at once")


def two_first_builds(site: Site) -> None:
    """Two builds at once of everything, where nothing has been built."""
    arguments = ("run", "--target", "dev", "--threads", "1")
    with psycopg.connect(site.project.warehouse.dsn) as gate:
        gate.execute("lock table headrace.model_locks in access exclusive mode")
        with site.project.apart(*arguments) as one, site.project.apart(*arguments) as other:
            site.blocked(2, BLOCKED.replace("build", "dev"))
            gate.rollback()
            for build in (one, other):
                expect_success(build, "one of two first builds")
    wrong = site.project.differences(schema="marts_dev")
    assert not wrong, "after two first builds at once: " + "\n".join(wrong)


def numbers_go_on(site: Site) -> None:
    """A model whose state is deleted and that is built again: its readers have seen higher numbers of it."""
    site.project.warehouse.execute("delete from headrace.model_states where identifier = 'jobs'")
    site.change()
    site.build("jobs")
    site.jobs((1, None))
    site.build()
    site.expect_equal("after jobs was built again without its state")


def replaced_table(site: Site) -> None:
    """Another table takes a model's place, as after a restore of an old copy."""
    site.project.warehouse.execute(
        f"create table outside.copy as table {SCHEMA}.by_location with no data; drop table {SCHEMA}.by_location; "
        f"alter table outside.copy set schema {SCHEMA}; alter table {SCHEMA}.copy rename to by_location"
    )
    site.build()
    site.expect_equal("after an empty copy took the place of by_location")


def changed_definition(site: Site) -> None:
    """An author changes a model's SELECT; nothing else is new."""
    (before,) = (model for model in site.project.models if model.name == "by_location")
    site.project.replace(replace(before, sql=before.sql.replace("group by", "where userid <> 3\ngroup by")))
    site.build()
    site.expect_equal("after by_location was given a condition")
    site.project.replace(before)
    site.build()


def touched_grains_by_index(site: Site) -> None:
    """A change of one row among many reads the rows of its grain, not the table."""
    rows = 30_000
    site.many_jobs(rows)
    site.build("jobs", "by_user")
    site.project.warehouse.execute(f"analyze {SCHEMA}.jobs")
    site.change()
    site.build("jobs")
    read = f"select seq_tup_read from pg_stat_user_tables where schemaname = '{SCHEMA}' and relname = 'jobs'"
    before = site.value(read)
    site.build("by_user")
    read_now = site.value(read) - before
    assert read_now < rows, f"a build of by_user scanned {read_now} rows of jobs to recompute two grains"


# those that need no process but this one, and two builders at once
QUICK: tuple[Scenario, ...] = (
    moved_rows,
    images,
    null_grains,
    swapped_ranks,
    trimmed_log,
    swapped_upstream,
    own_turn_first,
    numbers_go_on,
    replaced_table,
    two_builds,
)
SLOW: tuple[Scenario, ...] = (
    truncated_upstream,
    killed_after_the_trim,
    trimmed_under_a_reader,
    trimmed_under_a_first_reader,
    committed_between,
    committed_between_grains,
    two_first_builds,
    changed_definition,
    touched_grains_by_index,
)
