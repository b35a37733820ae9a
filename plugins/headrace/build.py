"""Build the marts: dbt in this process, until nothing is unclaimed."""

import atexit
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection, errors, pq
from psycopg.conninfo import conninfo_to_dict

from headrace.database import Connect, connector, database, translated_errors
from headrace.exceptions import BuildError, DatabaseUnavailable
from headrace.settings import Settings

SCHEMA = "marts"  # of the target `prod` in dbt/profiles.yml
TURN_TIMEOUT_S = 900  # how long a build waits for another one to end: a first build of 100 million rows takes minutes
PASSES_MAX = 20  # a pass that advances no claim ends the loop long before; this is against a defect
NAMED_FAILURES = 3  # how many failures a message names before it counts the others

Report = Callable[[str], None]

# dbt's manifest, kept warm: with it a later run of the same process takes 0.2 s, without it 1.1 s
_manifests: dict[tuple[str, ...], Any] = {}


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What one pass did with one model or function; `test` is a test of no model, `project` dbt itself."""

    schema: str
    model: str
    kind: str
    status: str
    rows: int | None
    seconds: float
    failed_tests: tuple[str, ...]
    message: str | None
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: its passes, and what each did with each model."""

    build_id: UUID
    passes: tuple[tuple[NodeResult, ...], ...]
    seconds: float

    @property
    def rows(self) -> int:
        """Rows that the models' statements wrote, all passes together."""
        return sum(node.rows or 0 for nodes in self.passes for node in nodes if node.kind == "model")

    def story(self) -> str:
        """One line for people."""
        if not self.passes:
            return "build: nothing new; every model has built every batch"
        models = {node.model for nodes in self.passes for node in nodes if node.kind == "model"}
        passes = "1 pass" if len(self.passes) == 1 else f"{len(self.passes)} passes"
        return f"build: {len(models)} models, {self.rows} rows written in {self.seconds:.1f} s, {passes}"


def build(
    settings: Settings,
    select: str | Sequence[str] | None = None,
    vars: Mapping[str, Any] | str | None = None,
    full_refresh: bool = False,
    tests: bool = True,
    report: Report = lambda _line: None,
) -> BuildResult:
    """Run dbt build in this process until a pass advances no claim, and record it in headrace.builds.

    Builds what is committed when it begins: it ends, however fast batches go on to come. Without a selection it
    returns at once when every model has built every batch. Builds take turns: a second one waits, then finds
    nothing left to do. tests=False leaves the data tests out; unit tests are for development and never run here.

    Raises BuildError, naming the models and tests that failed; what other models built stays built, and a
    failed model's claim was rolled back with its rows. Raises DatabaseUnavailable when trying again can help.
    """
    began = time.monotonic()
    selection = _selection(select, vars)
    project = fingerprint(settings.dbt_dir)
    connect = connector(settings.require_postgres_dsn(), "headrace-build")
    build_id = uuid4()
    passes: list[tuple[NodeResult, ...]] = []
    with database(connect) as connection:
        may_skip = selection is None and not full_refresh
        if may_skip and is_up_to_date(connection, project):
            return BuildResult(build_id, (), time.monotonic() - began)
        with _turn(connect, report), _Dbt(settings, connection, project, vars) as dbt:
            if may_skip and is_up_to_date(connection, project):
                return BuildResult(build_id, (), time.monotonic() - began)
            newest = _newest_batches(connection)
            while len(passes) < PASSES_MAX:
                before = _claims(connection, newest)
                started_at = datetime.now(UTC)
                try:
                    nodes = dbt.run_pass(select, full_refresh and not passes, tests)
                except BuildError as error:
                    failed = _project_failed(error, started_at)
                    _record(connection, build_id, len(passes) + 1, (failed,), selection, project)
                    raise
                passes.append(nodes)
                _record(connection, build_id, len(passes), nodes, selection, project)
                _report_pass(nodes, report)
                _raise_failures(nodes)
                after = _claims(connection, newest)
                if after == before or not _unclaimed(connection, newest, {node.model for node in nodes}):
                    break
    return BuildResult(build_id, tuple(passes), time.monotonic() - began)


def fingerprint(dbt_dir: Path) -> str:
    """The sha256 over the project's files: a changed model is a reason to build."""
    digest = hashlib.sha256()
    for path in sorted(dbt_dir.rglob("*")):
        if path.suffix in {".sql", ".yml"} and not {"target", "logs"} & set(path.relative_to(dbt_dir).parts):
            digest.update(f"{path.relative_to(dbt_dir)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_up_to_date(connection: Connection[Any], project: str) -> bool:
    """Whether the last whole build succeeded with this project, all it made is there, and nothing is unclaimed."""
    (last_is_whole,) = connection.execute(
        """
        select coalesce(bool_and(
            project = %s and status = 'success'
            and case kind
                when 'model' then to_regclass(format('%%I.%%I', schema, model)) is not null and (
                    not has_claim or exists (
                        select from headrace.claims as c where (c.schema, c.identifier) = (b.schema, b.model)
                    )
                )
                when 'function' then exists (
                    select from pg_proc as p where p.proname = b.model and p.pronamespace = to_regnamespace(b.schema)
                )
                else true
            end
        ), false)
        from headrace.builds as b
        where build_id = (
            select build_id from headrace.builds where selection is null order by finished_at desc limit 1
        )
        """,
        (project,),
    ).fetchone() or (False,)
    return bool(last_is_whole) and not _unclaimed(connection, _newest_batches(connection), None)


def _newest_batches(connection: Connection[Any]) -> dict[str, int]:
    return dict(connection.execute("select dataset, max(seq) from headrace.batches group by dataset").fetchall())


def _claims(connection: Connection[Any], newest: Mapping[str, int]) -> set[tuple[Any, ...]]:
    """The claims as far as the batches that this build is about go: newer ones do not keep it going."""
    rows = connection.execute(
        "select identifier, dataset, to_seq, built, seen::text from headrace.claims where schema = %s", (SCHEMA,)
    )
    return {(model, dataset, min(to_seq, newest.get(dataset, 0)), *rest) for model, dataset, to_seq, *rest in rows}


def _unclaimed(connection: Connection[Any], newest: Mapping[str, int], models: set[str] | None) -> set[str]:
    """The models (of those given; None: of all) that have batches to build or must start from zero."""
    rows = connection.execute(
        """
        select
            c.identifier,
            c.dataset,
            c.to_seq,
            exists (
                select from jsonb_each_text(c.seen) as s (upstream, built)
                where s.built is distinct from case s.upstream
                    when 'headrace.datasets' then (
                        select d.built::text from headrace.datasets as d where d.dataset = c.dataset
                    )
                    else (
                        select u.built::text from headrace.claims as u
                        where u.schema || '.' || u.identifier = s.upstream and u.dataset = c.dataset
                    )
                end
            ) or c.to_seq > coalesce((select max(seq) from headrace.batches as b where b.dataset = c.dataset), 0)
        from headrace.claims as c
        where c.schema = %s
        """,
        (SCHEMA,),
    )
    return {
        model
        for model, dataset, to_seq, is_stale in rows
        if (is_stale or to_seq < newest.get(dataset, 0)) and (models is None or model in models)
    }


@contextmanager
def _turn(connect: Connect, report: Report) -> Iterator[None]:
    """One build at a time: two first builds at once would do everything twice.

    The lock is a transaction's, so that it also holds through a pooler; it ends with the process.
    """
    with translated_errors():
        connection = connect()
    try:
        with translated_errors():
            connection.execute("begin")
            connection.execute("set local idle_in_transaction_session_timeout = 0")
            key = f"headrace.builds {SCHEMA}"
            got_it = connection.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (key,)).fetchone()
            if got_it != (True,):
                report("build: another build is running; waiting for it to end")
                connection.execute(f"set local lock_timeout = '{TURN_TIMEOUT_S}s'".encode())
                try:
                    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
                except errors.LockNotAvailable as error:
                    raise DatabaseUnavailable(
                        f"build: found another build that has run for more than {TURN_TIMEOUT_S} s, expected its turn; "
                        "if that one hangs, end it (pg_stat_activity: application_name headrace-build), then try again"
                    ) from error
        yield
    finally:
        connection.close()


class _Dbt:
    """dbt in this process, with the profile's environment; a context manager that puts the environment back."""

    def __init__(
        self, settings: Settings, connection: Connection[Any], project: str, vars: Mapping[str, Any] | str | None
    ) -> None:
        self._connection = connection
        self._home = settings.home / "dbt"
        self._target = _target_folder(self._home)
        self._environment = profile_environment(settings, connection)
        self._vars = vars if isinstance(vars, str) else json.dumps(dict(vars or {}))
        where = [self._environment[name] for name in ("HEADRACE_DBT_HOST", "HEADRACE_DBT_PORT", "HEADRACE_DBT_DBNAME")]
        self._manifest_key = (str(settings.dbt_dir), project, self._vars, *where)
        self._options = [
            *("--project-dir", str(settings.dbt_dir), "--profiles-dir", str(settings.dbt_dir), "--target", "prod"),
            *("--target-path", str(self._target), "--log-path", str(self._home / "logs")),
            *("--log-level", "none", "--log-level-file", "info", "--no-version-check", "--vars", self._vars),
        ]
        self._saved: dict[str, str | None] = {}

    def __enter__(self) -> "_Dbt":
        self._saved = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        return self

    def __exit__(self, *_exc: object) -> None:
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def run_pass(self, select: str | Sequence[str] | None, full_refresh: bool, tests: bool) -> tuple[NodeResult, ...]:
        """One `dbt build`; raises BuildError when dbt itself fails, not when a model does."""
        if self._manifest_key not in _manifests:
            _manifests.clear()  # of another project or database: it will not be asked for again
            _manifests[self._manifest_key] = self._invoke(["parse", *self._parse_cache()], None)
            self._keep_parse_cache()
        arguments = ["build", "--no-write-json", "--exclude-resource-type", "unit_test"]
        if not tests:
            arguments += ["--exclude-resource-type", "test"]
        if select:
            arguments += ["--select", *([select] if isinstance(select, str) else select)]
        if full_refresh:
            arguments += ["--full-refresh"]
        manifest = _manifests[self._manifest_key]
        for node in manifest.nodes.values():
            if hasattr(node, "extra_ctes"):  # else the next run leaves the ephemeral models out of its SQL
                node.extra_ctes, node.extra_ctes_injected, node.compiled, node.compiled_code = [], False, False, None
        result = self._invoke(arguments, manifest)
        return _node_results(result.results, manifest)

    def _invoke(self, arguments: list[str], manifest: Any) -> Any:
        from dbt.cli.main import dbtRunner  # 2.5 s of imports

        outcome = dbtRunner(manifest=manifest).invoke([*arguments, *self._options])
        if outcome.exception is not None:
            if not isinstance(outcome.exception, Exception):
                raise outcome.exception  # a signal, a task's time limit: dbt hands back whatever it caught
            self._raise(outcome.exception)
        if outcome.result is None:
            raise BuildError(
                f"dbt {arguments[0]}: found no result, expected one; see {self._home / 'logs' / 'dbt.log'}"
            )
        return outcome.result

    def _raise(self, error: Exception) -> None:
        try:
            self._connection.execute("select")
        except psycopg.Error as lost:
            raise DatabaseUnavailable(
                "dbt: the connection to Postgres was lost; expected a server that answers; run the same command again"
            ) from lost
        raise BuildError(
            f"dbt: {_one_line(str(error))}; expected a project and a profile that dbt can use; the whole story is in "
            f"{self._home / 'logs' / 'dbt.log'}"
        ) from error

    def _parse_cache(self) -> list[str]:
        cache = self._home / "partial_parse.msgpack"
        return ["--partial-parse-file-path", str(cache)] if cache.exists() else []

    def _keep_parse_cache(self) -> None:
        made = self._target / "partial_parse.msgpack"
        if made.exists():
            copy = made.with_suffix(".copy")
            shutil.copyfile(made, copy)
            copy.replace(self._home / "partial_parse.msgpack")


def _target_folder(home: Path) -> Path:
    """A folder of this process's own, so that two builds at once do not write into each other's files."""
    home.mkdir(parents=True, exist_ok=True)
    for old in home.glob("target-*"):
        if not Path(f"/proc/{old.name.removeprefix('target-')}").exists() and Path("/proc/self").exists():
            shutil.rmtree(old, ignore_errors=True)  # its process was killed
    target = home / f"target-{os.getpid()}"
    if not target.exists():
        target.mkdir()
        atexit.register(shutil.rmtree, target, ignore_errors=True)
    return target


def profile_environment(settings: Settings, connection: Connection[Any]) -> dict[str, str]:
    """What dbt/profiles.yml reads, as the open connection has it; the DSN's other parameters as libpq's variables."""
    info = connection.info
    variables = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    environment = {
        variable.decode(): str(value)
        for keyword, value in conninfo_to_dict(settings.require_postgres_dsn()).items()
        if (variable := variables.get(keyword)) and keyword not in {"host", "port", "user", "dbname", "password"}
    }
    return environment | {
        "HEADRACE_DBT_HOST": info.host,
        "HEADRACE_DBT_PORT": str(info.port),
        "HEADRACE_DBT_USER": info.user,
        "HEADRACE_DBT_DBNAME": info.dbname,
        "HEADRACE_DBT_THREADS": str(settings.dbt_threads),
        "DBT_ENV_SECRET_HEADRACE_PASSWORD": info.password,
    }


def _selection(select: str | Sequence[str] | None, vars: Mapping[str, Any] | str | None) -> str | None:
    parts = [] if not select else ["--select", *([select] if isinstance(select, str) else select)]
    if vars:
        parts += ["--vars", vars if isinstance(vars, str) else json.dumps(dict(vars))]
    return " ".join(parts) or None


def _node_results(results: Sequence[Any], manifest: Any) -> tuple[NodeResult, ...]:
    """dbt's results, one for each model and function; a test's failure belongs to the models that it reads."""
    failed_tests: dict[str, list[str]] = {}
    lines: list[NodeResult] = []
    for result in results:
        if str(result.node.resource_type) != "test" or str(result.status) not in {"fail", "error"}:
            continue
        found = _one_line(str(result.message)) if str(result.status) == "error" else f"{result.failures} rows"
        test = f"{result.node.name}: {found}"
        attached = getattr(result.node, "attached_node", None)
        read = [attached] if attached else list(result.node.depends_on.nodes)
        models = [node for node in read if node.startswith("model.") and not manifest.nodes[node].is_ephemeral]
        for model in models:
            failed_tests.setdefault(model, []).append(test)
        if not models:
            lines.append(_node_result(result, "test", (test,)))
    for result in results:
        kind = str(result.node.resource_type)
        if kind in {"model", "function"}:
            lines.append(_node_result(result, kind, tuple(failed_tests.pop(result.node.unique_id, ()))))
    # a selection can run the tests of a model that it does not build
    for model, tests in failed_tests.items():
        name = model.rpartition(".")[2]
        now = datetime.now(UTC)
        lines.append(NodeResult(SCHEMA, name, "model", "failed tests", None, 0.0, tuple(tests), None, now, now))
    return tuple(lines)


def _node_result(result: Any, kind: str, failed_tests: tuple[str, ...]) -> NodeResult:
    status = str(result.status)
    if status not in {"error", "skipped"}:
        status = "failed tests" if failed_tests else "success"
    times = [moment for timing in result.timing for moment in (timing.started_at, timing.completed_at) if moment]
    times = [moment.replace(tzinfo=UTC) for moment in times] or [datetime.now(UTC)]
    rows = (result.adapter_response or {}).get("rows_affected")
    return NodeResult(
        schema=result.node.schema,
        model=result.node.name if kind == "test" else result.node.alias,
        kind=kind,
        status=status,
        rows=int(rows) if kind == "model" and rows is not None and status != "skipped" else None,
        seconds=float(result.execution_time),
        failed_tests=failed_tests,
        message=_one_line(result.message) if result.message and status == "error" else None,
        started_at=min(times),
        finished_at=max(times),
    )


def _project_failed(error: BuildError, started_at: datetime) -> NodeResult:
    now = datetime.now(UTC)
    seconds = (now - started_at).total_seconds()
    return NodeResult(SCHEMA, "dbt", "project", "error", None, seconds, (), str(error), started_at, now)


def _record(
    connection: Connection[Any],
    build_id: UUID,
    pass_number: int,
    nodes: Sequence[NodeResult],
    selection: str | None,
    project: str,
) -> None:
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into headrace.builds (
                build_id, pass, schema, model, kind, status, rows, seconds, failed_tests, message, has_claim,
                selection, project, started_at, finished_at
            )
            values (
                %(build_id)s, %(pass)s, %(schema)s, %(model)s, %(kind)s, %(status)s, %(rows)s, %(seconds)s,
                %(failed_tests)s, %(message)s,
                exists (
                    select from headrace.claims as c where (c.schema, c.identifier) = (%(schema)s, %(model)s)
                ),
                %(selection)s, %(project)s, %(started_at)s, %(finished_at)s
            )
            """,
            [
                {
                    "build_id": build_id,
                    "pass": pass_number,
                    "schema": node.schema,
                    "model": node.model,
                    "kind": node.kind,
                    "status": node.status,
                    "rows": node.rows,
                    "seconds": node.seconds,
                    "failed_tests": list(node.failed_tests),
                    "message": node.message,
                    "selection": selection,
                    "project": project,
                    "started_at": node.started_at,
                    "finished_at": node.finished_at,
                }
                for node in nodes
            ],
        )


def _report_pass(nodes: Sequence[NodeResult], report: Report) -> None:
    for node in nodes:
        if node.kind == "model":
            rows = "" if node.rows is None else f"{node.rows} rows, "
            report(f"{node.schema}.{node.model}: {node.status}, {rows}{node.seconds:.2f} s")


def _raise_failures(nodes: Sequence[NodeResult]) -> None:
    errors_ = [
        f"{node.schema}.{node.model}: found {node.message or 'an error'}, expected a {node.kind} that builds; "
        "its claim was rolled back with its rows"
        for node in nodes
        if node.status == "error"
    ]
    tests = dict.fromkeys(test for node in nodes for test in node.failed_tests)  # once, though it reads two models
    where = {test: f"{node.schema}.{node.model}" for node in nodes for test in node.failed_tests}
    errors_ += [f"{where[test]}: test {test} found, expected none" for test in tests]
    if not errors_:
        return
    named = "; ".join(errors_[:NAMED_FAILURES])
    more = f" (and {len(errors_) - NAMED_FAILURES} more)" if len(errors_) > NAMED_FAILURES else ""
    skipped = sum(node.status == "skipped" for node in nodes)
    after = f"; {skipped} models and functions behind them were skipped" if skipped else ""
    raise BuildError(
        f"{named}{more}{after}; correct the model or its data (headrace.builds has every message; dbt test --select "
        "<test> repeats a test), then run `headrace build`"
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
