"""Build the marts: what is committed and not yet built, until no claim advances."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection, errors

from headrace.callbacks import PrintLine
from headrace.command import Command
from headrace.exceptions import BuildError, DatabaseUnavailable
from headrace.marts.claims import (
    SCHEMA,
    NodeResult,
    claims,
    is_up_to_date,
    newest_batches,
    record,
    stateless_models,
    unclaimed,
)
from headrace.marts.dbt import DbtRunner, fingerprint
from headrace.marts.readers import Readers
from headrace.marts.removed import forget_removed
from headrace.postgres.connection import Connect, connector, database, translated_errors
from headrace.postgres.foreign_objects import refuse_foreign_objects
from headrace.postgres.ledger import RunContext
from headrace.settings import Settings

BUILD_WAIT_S = 900  # how long a build waits for another one to end: a first build of 100 million rows takes minutes
PASSES_MAX = 20  # a pass that advances no claim ends the loop long before; this is against a defect
NAMED_FAILURES = 3  # how many failures a message names before it counts the others


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: its passes, and what each did with each model.

    readers: the models behind each dataset; empty where dbt did not run. manifest: dbt's, with the SQL that it ran;
    None where it did not run.
    """

    build_id: UUID
    passes: tuple[tuple[NodeResult, ...], ...]
    seconds: float
    readers: Mapping[str, Readers] = field(default_factory=dict)
    manifest: Any = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows that the models' statements wrote, all passes together."""
        return sum(node.rows or 0 for nodes in self.passes for node in nodes if node.kind == "model")

    def summary(self) -> str:
        """One line for people."""
        if not self.passes:
            return "build: nothing new; every model has built every batch"
        models = {node.model for nodes in self.passes for node in nodes if node.kind == "model"}
        passes = "1 pass" if len(self.passes) == 1 else f"{len(self.passes)} passes"
        return f"build: {len(models)} models, {self.rows} rows written in {self.seconds:.1f} s, {passes}"

    def document(self) -> dict[str, Any]:
        """The result as JSON types; nodes: what each pass did, in order."""
        return {
            "build_id": str(self.build_id),
            "passes": len(self.passes),
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "nodes": [node.document(number) for number, nodes in enumerate(self.passes, 1) for node in nodes],
        }


def build(
    settings: Settings,
    select: str | Sequence[str] | None = None,
    vars: Mapping[str, Any] | str | None = None,
    full_refresh: bool = False,
    tests: bool = True,
    may_be_empty: bool = False,
    print_line: PrintLine = lambda _line: None,
    run: RunContext = RunContext(),  # noqa: B008 - frozen
) -> BuildResult:
    """Run dbt build in this process until a pass advances no claim, and record it in headrace.builds.

    Builds what is committed when it begins: it ends, however fast batches go on to come. Without a selection it
    returns at once when every model has built every batch. Builds take turns: a second one waits, then finds
    nothing left to do. tests=False leaves the data tests out; unit tests are for development and never run here.
    A selection of nothing is refused as a misspelt one, unless it may_be_empty. run: the task that builds.

    Claims, state and logs of models that the project no longer has are deleted.

    Raises BuildError, naming the models and tests that failed; what other models built stays built, and a
    failed model's claim was rolled back with its rows. Raises UsageError for a selection or vars that cannot be used:
    nothing is recorded then. Raises DatabaseError where the marts belong to a role that may do less than this one.
    Raises DatabaseUnavailable when trying again can help.
    """
    began = time.monotonic()
    selection = _selection(select, vars)
    project = fingerprint(settings)
    connect = connector(settings.require_dbt_dsn(), "headrace-build")
    build_id = uuid4()
    passes: list[tuple[NodeResult, ...]] = []
    with database(connect) as connection:
        may_skip = selection is None and not full_refresh
        if may_skip and is_up_to_date(connection, project, tests):
            return BuildResult(build_id, (), time.monotonic() - began)
        refuse_foreign_objects(connection, SCHEMA, "build")
        with _exclusive_build(connect, print_line), DbtRunner(settings, connection, vars, project) as dbt:
            if may_skip and is_up_to_date(connection, project, tests):
                return BuildResult(build_id, (), time.monotonic() - began)
            newest = newest_batches(connection)
            while len(passes) < PASSES_MAX:
                before = claims(connection, newest)
                stateless = stateless_models(connection)
                started_at = datetime.now(UTC)
                try:
                    nodes = dbt.run_pass(select, full_refresh and not passes, tests, may_be_empty=may_be_empty)
                except BuildError as error:
                    if not vars:  # of the caller: with others the project may be in order
                        failed = _project_failed(error, started_at)
                        record(connection, build_id, len(passes) + 1, (failed,), selection, project, tests, run)
                    raise
                if not passes and not vars:  # which may enable models, and disable others
                    _forget_removed(connection, dbt, print_line)
                passes.append(nodes)
                _print_taken_over(stateless - stateless_models(connection), print_line)
                record(connection, build_id, len(passes), nodes, selection, project, tests, run)
                _print_pass(nodes, print_line)
                _raise_failures(nodes)
                after = claims(connection, newest)
                if after == before or not unclaimed(connection, newest, {node.model for node in nodes}):
                    break
            found, manifest = dbt.readers(), dbt.manifest()
    return BuildResult(build_id, tuple(passes), time.monotonic() - began, found, manifest)


def _print_taken_over(models: set[str], print_line: PrintLine) -> None:
    if models:
        print_line(
            f"build: took over {', '.join(sorted(models))}, built by an earlier version: compared as a whole, and "
            "altered in place; grants and views stay"
        )


def _forget_removed(connection: Connection[Any], dbt: DbtRunner, print_line: PrintLine) -> None:
    claiming = dbt.claiming_models()
    forgotten = forget_removed(connection, claiming) if claiming else []
    if forgotten:
        print_line(
            f"build: forgot the claims of {', '.join(forgotten)} and dropped their logs: no models of the project "
            "claim batches under these names; their tables stay"
        )


@contextmanager
def _exclusive_build(connect: Connect, print_line: PrintLine) -> Iterator[None]:
    """One build at a time: two first builds at once would do everything twice.

    The lock is a transaction's, so that it also holds through a pooler; it ends with the process. Only a role that may
    build can take it.
    """
    with translated_errors():
        connection = connect()
    with closing(connection), connection.transaction():
        try:
            with translated_errors():
                if not _is_first(connection):
                    print_line("build: another build is running; waiting for it to end")
                    connection.execute(f"set local lock_timeout = '{BUILD_WAIT_S}s'".encode())
                    try:
                        connection.execute(b"lock table headrace.build_lock in exclusive mode")
                    except errors.LockNotAvailable as error:
                        raise DatabaseUnavailable(
                            f"build: found another build that has run for more than {BUILD_WAIT_S} s, expected its "
                            "turn; if that one hangs, end it (pg_stat_activity: application_name headrace-build), then "
                            "try again"
                        ) from error
            yield
        finally:
            connection.close()  # which ends the transaction in any state


def _is_first(connection: Connection[Any]) -> bool:
    """Take the builds' lock, unless another transaction has it."""
    try:
        with connection.transaction():  # a savepoint
            connection.execute("lock table headrace.build_lock in exclusive mode nowait")
    except errors.LockNotAvailable:
        return False
    return True


def _selection(select: str | Sequence[str] | None, vars: Mapping[str, Any] | str | None) -> str | None:
    parts = [] if not select else ["--select", *([select] if isinstance(select, str) else select)]
    if vars:
        parts += ["--vars", vars if isinstance(vars, str) else json.dumps(dict(vars))]
    return " ".join(parts) or None


def _project_failed(error: BuildError, started_at: datetime) -> NodeResult:
    now = datetime.now(UTC)
    seconds = (now - started_at).total_seconds()
    return NodeResult(SCHEMA, "dbt", "project", "error", None, seconds, (), str(error), started_at, now)


def _print_pass(nodes: Sequence[NodeResult], print_line: PrintLine) -> None:
    for node in nodes:
        if node.kind == "model":
            rows = "" if node.rows is None else f"{node.rows} rows, "
            print_line(f"{node.schema}.{node.model}: {node.status}, {rows}{node.seconds:.2f} s")


def _of_node(node: NodeResult) -> str:
    """What failed: a refusal says where and what was expected, a message of dbt or Postgres does not."""
    where = f"{node.schema}.{node.model}: "
    if node.message and node.message.startswith(where):
        return node.message
    return f"{where}found {node.message or 'an error'}, expected a {node.kind} that builds"


def _raise_failures(nodes: Sequence[NodeResult]) -> None:
    failures = [
        f"{_of_node(node)}; its claim was rolled back with its rows" for node in nodes if node.status == "error"
    ]
    tests = dict.fromkeys(test for node in nodes for test in node.failed_tests)  # once, though it reads two models
    where = {test: f"{node.schema}.{node.model}" for node in nodes for test in node.failed_tests}
    failures += [f"{where[test]}: test {test} found, expected none" for test in tests]
    if not failures:
        return
    named = "; ".join(failures[:NAMED_FAILURES])
    more = f" (and {len(failures) - NAMED_FAILURES} more)" if len(failures) > NAMED_FAILURES else ""
    skipped = sum(node.status == "skipped" for node in nodes)
    after = f"; {skipped} models and functions behind them were skipped" if skipped else ""
    raise BuildError(
        f"{named}{more}{after}; correct the model or its data (headrace.builds has every message; dbt test --select "
        "<test> repeats a test), then run `headrace build`",
        command=Command("build"),
    )
