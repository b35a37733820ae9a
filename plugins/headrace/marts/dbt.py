"""dbt in this process: one project, one profile, a manifest that is kept warm."""

import atexit
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from headrace.dataset_files import similar
from headrace.exceptions import BuildError, DatabaseUnavailable, UsageError
from headrace.marts.claims import NodeResult
from headrace.marts.dbt_costs import spare_costs
from headrace.marts.enforced import enforced_tests
from headrace.marts.node_results import node_results, one_line
from headrace.marts.profile import PRODUCTION, Profile
from headrace.marts.readers import Readers, readers
from headrace.optional import needs
from headrace.postgres.connection import translated_errors
from headrace.postgres.liveness import PARAMETERS, with_limits
from headrace.postgres.session import STARTUP_VARIABLES, PooledConnection, is_accepted, startup_options
from headrace.private_files import FOLDER_MODE, UMASK, close_to_others, make_folder, replaced_file
from headrace.service_urls import libpq_variables
from headrace.settings import Settings

_ENFORCED = "headrace_enforced"  # the tag of tests that a constraint makes superfluous
# materializations that ask Postgres for relations, not dbt's cache of them
_CACHELESS = frozenset({"maintained", "ephemeral"})
# with its manifest handed over a later run of the same process takes 0.2 s, without it 1.1 s
_manifests: dict[tuple[str, ...], Any] = {}


class DbtRunner:
    """dbt in this process, with the profile's environment; a context manager that puts the environment back."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection[Any],
        vars: Mapping[str, Any] | str | None,
        project: str,
        profile: Profile | None = None,
    ) -> None:
        """project: the `fingerprint` of the project, by which its manifest is kept."""
        self._connection = connection
        self._home = settings.home / "dbt"
        self._target = _target_folder(self._home)
        self._environment = profile_environment(settings, connection) | _service(settings, self._target)
        self._vars = vars if isinstance(vars, str) else json.dumps(dict(vars or {}))
        where = [self._environment[name] for name in ("HEADRACE_DBT_HOST", "HEADRACE_DBT_PORT", "HEADRACE_DBT_DBNAME")]
        self._manifest_key = (str(settings.dbt_dir), project, self._vars, *where)
        self._is_production = profile is None
        profile = profile or Profile(settings.dbt_dir, PRODUCTION)
        self._options = [
            *("--project-dir", str(settings.dbt_dir), "--profiles-dir", str(profile.folder)),
            *("--target", profile.target),
            *("--target-path", str(self._target), "--log-path", str(self._home / "logs")),
            *("--log-level", "none", "--log-level-file", "info", "--no-version-check", "--vars", self._vars),
        ]
        self._saved: dict[str, str | None] = {}
        self._umask = UMASK

    def __enter__(self) -> Self:
        self._umask = os.umask(UMASK)  # the manifest holds the models' SQL, the log what it says
        self._saved = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.umask(self._umask)
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def run_pass(
        self, select: str | Sequence[str] | None, full_refresh: bool, tests: bool, *, may_be_empty: bool = False
    ) -> tuple[NodeResult, ...]:
        """One `dbt build`.

        Raises BuildError when dbt itself fails, not when a model does; UsageError for a selection or vars that dbt
        cannot use.
        """
        arguments = ["build", "--no-write-json", "--exclude-resource-type", "unit_test"]
        if not tests:
            arguments += ["--exclude-resource-type", "test"]
        if select:
            arguments += ["--select", *([select] if isinstance(select, str) else select)]
        if full_refresh:
            arguments += ["--full-refresh"]
        manifest = self.manifest()
        for node in manifest.nodes.values():
            if hasattr(node, "extra_ctes"):  # else the next run leaves the ephemeral models out of its SQL
                node.extra_ctes, node.extra_ctes_injected, node.compiled, node.compiled_code = [], False, False, None
        if tests and not select and self._vars == "{}":  # an audit reads everything, a selection may name a test
            arguments += self._exclude(enforced_tests(self._connection, manifest), manifest)
        if all(node.config.materialized in _CACHELESS for node in manifest.nodes.values() if node.is_relational):
            arguments += ["--no-populate-cache"]
        result = self._invoke(arguments, manifest)
        if select and not result.results and not may_be_empty:
            known = [node.name for node in manifest.nodes.values()]
            raise UsageError(
                f"--select {select}: found nothing of that name{similar(str(select), known)}, expected a model; "
                "`dbt ls` names them all"
            )
        return node_results(result.results, manifest)

    def manifest(self) -> Any:
        """The manifest of the project, parsed when it is first asked for."""
        if self._manifest_key not in _manifests:
            _manifests.clear()  # of another project or database: it will not be asked for again
            _manifests[self._manifest_key] = self._invoke(["parse", *self._parse_cache()], None)
            self._keep_parse_cache()
        return _manifests[self._manifest_key]

    @staticmethod
    def _exclude(tests: set[str], manifest: Any) -> list[str]:
        """Arguments that leave these tests out: dbt searches once for a tag, and once for each name."""
        for unique_id, node in manifest.nodes.items():
            if str(node.resource_type) == "test":
                others = [tag for tag in node.tags if tag != _ENFORCED]
                node.tags = [*others, _ENFORCED] if unique_id in tests else others
        return ["--exclude", f"tag:{_ENFORCED}"]

    def claiming_models(self) -> set[str]:
        """The tables of the project's models that claim batches, once a pass has parsed it; disabled ones are not."""
        manifest = _manifests[self._manifest_key]
        claiming = {name for name in manifest.macros if name.endswith(".claim")}
        while more := {
            name
            for name, macro in manifest.macros.items()
            if name not in claiming and claiming & set(macro.depends_on.macros)
        }:
            claiming |= more
        return {
            node.alias
            for node in manifest.nodes.values()
            if str(node.resource_type) == "model"
            and (node.config.materialized == "maintained" or claiming & set(node.depends_on.macros))
        }

    def readers(self) -> dict[str, Readers]:
        """The models behind each dataset, once a pass has parsed the project."""
        return readers(_manifests[self._manifest_key])

    def _invoke(self, arguments: list[str], manifest: Any) -> Any:
        with needs("dbt"):
            from dbt.cli.main import dbtRunner  # 2.5 s of imports

        spare_costs()
        outcome = dbtRunner(manifest=manifest).invoke([*arguments, *self._options])
        if outcome.exception is not None:
            if not isinstance(outcome.exception, Exception):
                raise outcome.exception  # a signal, a task's time limit: dbt hands back whatever it caught
            self._raise(outcome.exception, arguments)
        if outcome.result is None:
            raise BuildError(
                f"dbt {arguments[0]}: found no result, expected one; see {self._home / 'logs' / 'dbt.log'}"
            )
        return outcome.result

    def _raise(self, error: Exception, arguments: Sequence[str]) -> None:
        if _is_usage(error, arguments):
            raise UsageError(
                f"dbt: {one_line(str(error))}; expected a selection and vars that dbt can use; correct the command"
            ) from error
        try:
            self._connection.execute("select")
        except psycopg.Error as lost:
            raise DatabaseUnavailable(
                "dbt: the connection to Postgres was lost; expected a server that answers; run the same command again"
            ) from lost
        raise BuildError(
            f"dbt: {one_line(str(error))}; expected a project and a profile that dbt can use; the details are in "
            f"{self._home / 'logs' / 'dbt.log'}"
        ) from error

    def _parse_cache(self) -> list[str]:
        cache = self._home / "partial_parse.msgpack"
        return ["--partial-parse-file-path", str(cache)] if cache.exists() and self._is_production else []

    def _keep_parse_cache(self) -> None:
        made = self._target / "partial_parse.msgpack"
        if made.exists() and self._is_production:
            copy = made.with_suffix(".copy")
            shutil.copyfile(made, copy)
            copy.replace(self._home / "partial_parse.msgpack")


def _is_usage(error: Exception, arguments: Sequence[str]) -> bool:
    """Whether dbt refuses what it was called with, as against what is in the project."""
    from dbt.cli.exceptions import DbtUsageException
    from dbt.exceptions import InvalidSelectorError

    needs_artifacts = ("state:", "result:", "source_status:")  # dbt has no error of its own for these
    return isinstance(error, DbtUsageException | InvalidSelectorError) or any(
        method in argument for argument in arguments for method in needs_artifacts
    )


def fingerprint(settings: Settings) -> str:
    """The sha256 over the project's files and the settings that it reads: a changed one is a reason to build."""
    return hashlib.sha256(f"{_files_digest(settings.dbt_dir)} {json.dumps(settings.thresholds)}".encode()).hexdigest()


def _files_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".sql", ".yml"} and not {"target", "logs"} & set(path.relative_to(root).parts):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def profile_environment(settings: Settings, connection: Connection[Any]) -> dict[str, str]:
    """What dbt/profiles.yml reads, as the open connection has it; the DSN's other parameters as libpq's variables.

    And dbt's own sessions' parameters, as far as the server takes them when a session begins; behind a pooler, which
    takes few, each transaction sets them (headrace_dbt's session.sql).
    """
    info = connection.info
    named = {"host", "port", "user", "dbname", "password"}
    parameters = conninfo_to_dict(settings.require_dbt_dsn())
    environment = libpq_variables({name: str(value) for name, value in parameters.items() if name not in named})
    # the statement of a killed build ends; a server on Windows, which cannot see a client go, takes 0 alone
    check = "5s" if is_accepted(connection, "client_connection_check_interval", "5s") else "0"
    options = [environment.get("PGOPTIONS", "")]
    if not isinstance(connection, PooledConnection):
        with translated_errors():
            (search_path,) = connection.execute("select headrace.dbt_search_path()").fetchone() or ("",)
        options += startup_options(connection, search_path=search_path, client_connection_check_interval=check)
    return {
        **environment,
        **STARTUP_VARIABLES,
        "PGOPTIONS": " ".join(filter(None, options)),
        **settings.thresholds,
        "HEADRACE_DBT_HOST": info.host,
        "HEADRACE_DBT_PORT": str(info.port),
        "HEADRACE_DBT_USER": info.user,
        "HEADRACE_DBT_DBNAME": info.dbname,
        "HEADRACE_DBT_CLIENT_CHECK": check,
        "HEADRACE_DBT_THREADS": str(settings.dbt_threads),
        "DBT_ENV_SECRET_HEADRACE_PASSWORD": info.password,
    }


def _service(settings: Settings, folder: Path) -> dict[str, str]:
    """What neither dbt's profile nor libpq's environment has a name for, such as tcp_user_timeout, as a libpq service.

    A DSN or an environment that names a service itself keeps it.
    """
    parameters = with_limits(conninfo_to_dict(settings.require_dbt_dsn()))
    if "service" in parameters or "PGSERVICE" in os.environ:
        return {}
    path = folder / "pg_service.conf"
    with replaced_file(path) as file:
        file.write(("[headrace]\n" + "".join(f"{name}={parameters[name]}\n" for name in PARAMETERS)).encode())
    return {
        "PGSERVICEFILE": str(path),
        "PGSERVICE": "headrace",
        "DBT_KEEPALIVES_IDLE": parameters["keepalives_idle"],  # as the profile has it, for a dbt started by hand
    }


def _target_folder(home: Path) -> Path:
    """A folder of this process's own, so that two builds at once do not write into each other's files."""
    make_folder(home)
    close_to_others(home)
    for old in home.glob("target-*"):
        if not Path(f"/proc/{old.name.removeprefix('target-')}").exists() and Path("/proc/self").exists():
            shutil.rmtree(old, ignore_errors=True)  # its process was killed
    target = home / f"target-{os.getpid()}"
    if not target.exists():
        target.mkdir(mode=FOLDER_MODE)
        atexit.register(shutil.rmtree, target, ignore_errors=True)
    return target
