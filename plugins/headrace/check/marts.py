"""`headrace check --marts`: incremental builds of a copy, after random changes, against whole recomputation."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from psycopg import Connection

from headrace.callbacks import PrintLine
from headrace.check.changes import RandomChanges
from headrace.check.copies import STAGING, TableCopy, copied, copy_elements, prepare
from headrace.check.finding import Finding
from headrace.check.models import MAINTAINED
from headrace.check.scratch import scratch_schema
from headrace.exceptions import UsageError
from headrace.marts.audit import VARS
from headrace.marts.claims import NodeResult
from headrace.marts.dbt import DbtRunner, fingerprint
from headrace.marts.profile import copied_profile
from headrace.postgres.connection import connector, database
from headrace.settings import Settings

TARGET = "headrace-check"
FIRST_CHANGES = 40  # before the first build, so that tables that were copied apart have rows in common
CHANGES_MAX = 12  # of each dataset before a build


@dataclass(frozen=True, slots=True)
class Scope:
    """What is checked. models: names, none for every maintained model. rows: copied of each dataset at most."""

    models: Sequence[str] = ()
    seed: int = 0
    rounds: int = 10
    rows: int = 1_000


@dataclass(slots=True)
class MartsChecked:
    """rows: of each model, how many rows the builds after the first one changed. findings: the models that differ."""

    rows: dict[str, int] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)


def check_marts(settings: Settings, scope: Scope, print_line: PrintLine) -> MartsChecked:
    """Copy the newest rows of the datasets that the models read, change them at random, build, and compare.

    Each model is built by the materialization, in a schema of its own, from copies of staging tables; after each build
    the whole SELECT is compared with the table. Nothing else of the database is written, and the schema is dropped at
    the end. Raises UsageError for a model that the project does not have, BuildError where dbt itself fails.
    """
    connect = connector(settings.require_dbt_dsn(), "headrace-check")
    with (
        scratch_schema(connect) as schema,
        database(connect) as connection,
        tempfile.TemporaryDirectory(prefix="headrace-check-") as folder,
        DbtRunner(
            settings,
            connection,
            VARS | {"headrace_copy": f"{schema}_staging"},
            fingerprint(settings),
            copied_profile(settings.dbt_dir, Path(folder), TARGET, schema),
        ) as dbt,
    ):
        models = _models(dbt.manifest(), scope.models)
        staging = f"{schema}_staging"
        sources = _redirect(dbt.manifest(), _with_upstreams(dbt.manifest(), models), schema, staging)
        prepare(connection, staging)
        children = [source for source in sources if "parent" in _meta(source)]
        records = [source for source in sources if source not in children]
        copies = [copied(connection, staging, source.identifier, _meta(source), scope.rows) for source in records]
        for child in children:
            copy_elements(connection, staging, child.identifier, _meta(child)["parent"])
        print_line(f"check: copied {_counts(copies)}; seed {scope.seed}")
        checked = _play(connection, dbt, models, copies, scope)
    for model, finding in checked.findings.items():
        checked.findings[model] = replace(finding, file=str(settings.dbt_dir / finding.file))
    return checked


def _play(
    connection: Connection[Any], dbt: DbtRunner, models: Sequence[Any], copies: Sequence[TableCopy], scope: Scope
) -> MartsChecked:
    """Build, change and build again."""
    changes = RandomChanges(copies, scope.seed, _accepted_values(dbt.manifest()))
    checked = MartsChecked({model.alias: 0 for model in models})
    for number in range(scope.rounds + 1):
        changes.play(connection, CHANGES_MAX if number else FIRST_CHANGES)
        built = dbt.run_pass([f"+{model.name}" for model in models], full_refresh=False, tests=False)
        for node in built:
            if node.status == "error":
                checked.findings.setdefault(node.model, _finding(node, dbt.manifest(), scope.seed))
            elif number and node.model in checked.rows:
                checked.rows[node.model] += node.rows or 0
    return checked


def _models(manifest: Any, names: Sequence[str]) -> list[Any]:
    """The maintained models of these names, or all."""
    maintained = {
        node.name: node
        for node in manifest.nodes.values()
        if str(node.resource_type) == "model" and node.config.materialized == MAINTAINED
    }
    unknown = [name for name in names if name not in maintained]
    if unknown:
        raise UsageError(
            f"check: found no maintained model {', '.join(unknown)}, expected some of {', '.join(sorted(maintained))}"
        )
    return [maintained[name] for name in names or sorted(maintained)]


def _with_upstreams(manifest: Any, models: Sequence[Any]) -> list[Any]:
    """Models and all that they read."""
    everything = {**manifest.nodes, **manifest.sources}
    found: dict[str, Any] = {}
    waiting = [model.unique_id for model in models]
    while waiting:
        node = everything.get(waiting.pop())
        if node is not None and node.unique_id not in found:
            found[node.unique_id] = node
            waiting += getattr(node.depends_on, "nodes", []) if hasattr(node, "depends_on") else []
    return list(found.values())


def _redirect(manifest: Any, nodes: Sequence[Any], schema: str, staging: str) -> list[Any]:
    """Let dbt read and write the scratch schema alone: nodes that a project puts elsewhere, and staging tables.

    Returns the sources that are staging tables. Other sources are read where they are.
    """
    staged = [node for node in nodes if str(node.resource_type) == "source" and node.schema == STAGING]
    for node in staged:
        node.schema = staging
        node.relation_name = f'"{node.database}"."{staging}"."{node.identifier}"'
    for node in nodes:
        if str(node.resource_type) != "source" and not node.schema.startswith(schema):
            node.schema = f"{schema}_{node.schema}"[:63]
            node.relation_name = f'"{node.database}"."{node.schema}"."{node.alias}"'
    manifest.build_flat_graph()  # what macros see as `graph`: dbt makes it only when it parses
    return staged


def _accepted_values(manifest: Any) -> dict[str, list[str]]:
    """By column, what the tests accepted_values accept: a table without rows tells none of them."""
    tests = [node.test_metadata for node in manifest.nodes.values() if getattr(node, "test_metadata", None)]
    return {
        test.kwargs.get("column_name", ""): [str(value) for value in test.kwargs.get("values", ())]
        for test in tests
        if test.name == "accepted_values"
    }


def _meta(source: Any) -> dict[str, Any]:
    return dict((source.config.meta if source.config else None) or source.meta or {})


def _counts(copies: Sequence[TableCopy]) -> str:
    return ", ".join(f"{len(copy.rows)} rows of {STAGING}.{copy.name}" for copy in copies) or "no dataset"


def _finding(node: NodeResult, manifest: Any, seed: int) -> Finding:
    """A model whose build failed, by an audit or otherwise."""
    nodes = [other for other in manifest.nodes.values() if str(other.resource_type) == node.kind]
    path = next((other.original_file_path for other in nodes if other.alias == node.model), "dbt_project.yml")
    again = f"repeat: headrace check --marts {node.model} --seed {seed}"
    message = (node.message or "an error").removeprefix(f"{node.schema}.{node.model}: ")
    if not message.startswith("an audit found "):
        return Finding(path, None, f"after random changes: {message}", remedy=again)
    found = message.removeprefix("an audit found ").partition(", expected what its SELECT says")[0]
    return Finding(
        path,
        None,
        f"after random changes the incremental build of {node.model} has {found}",
        "what the whole SELECT gives: rows of a grain depend on upstream rows that do not touch it",
        f"correct grain or touched, or remove grain; {again}",
    )
