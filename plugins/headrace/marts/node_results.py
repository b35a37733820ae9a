"""The results of a pass of dbt: one for each model and function, with the tests that failed."""

import re
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from headrace.marts.claims import SCHEMA, NodeResult
from headrace.output import shown

_REFUSAL = re.compile(
    r"Compilation Error in model \S+ \((?P<path>[^)]+)\) (?P<text>.*?)(?: > (?:in|called by) macro .*)?"
)


def node_results(results: Sequence[Any], manifest: Any) -> tuple[NodeResult, ...]:
    """The results of dbt, one for each model and function; a failed test counts for the models that it reads."""
    failed_tests: dict[str, list[str]] = {}
    lines: list[NodeResult] = []
    for result in results:
        if str(result.node.resource_type) != "test" or str(result.status) not in {"fail", "error"}:
            continue
        found = one_line(str(result.message)) if str(result.status) == "error" else f"{result.failures} rows"
        test = f"{result.node.name}: {found}"
        attached = getattr(result.node, "attached_node", None)
        read = [attached] if attached else list(result.node.depends_on.nodes)
        models = [node for node in read if node.startswith("model.") and not manifest.nodes[node].is_ephemeral]
        for model in models:
            failed_tests.setdefault(model, []).append(test)
        if not models:
            lines.append(_node_result(result, "test", (test,)))
    failed = {result.node.unique_id for result in results if str(result.status) == "error"} | failed_tests.keys()
    for result in results:
        kind = str(result.node.resource_type)
        if kind in {"model", "function"}:
            line = _node_result(result, kind, tuple(failed_tests.pop(result.node.unique_id, ())))
            if line.status == "skipped":
                line = replace(line, behind=_failed_upstreams(result.node, failed, manifest))
            lines.append(line)
    # a selection can run the tests of a model that it does not build
    for model, tests in failed_tests.items():
        name = model.rpartition(".")[2]
        now = datetime.now(UTC)
        lines.append(NodeResult(SCHEMA, name, "model", "failed tests", None, 0.0, tuple(tests), None, now, now))
    return tuple(lines)


def _failed_upstreams(node: Any, failed: Set[str], manifest: Any) -> tuple[str, ...]:
    """The names of the nearest failed models upstream of a node, which dbt skipped because of them."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(node.depends_on.nodes)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in failed:
            found.add(manifest.nodes[name].alias if name in manifest.nodes else name.rpartition(".")[2])
        elif name in manifest.nodes:
            waiting += manifest.nodes[name].depends_on.nodes
    return tuple(sorted(found))


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
        message=_message(result) if result.message and status == "error" else None,
        started_at=min(times),
        finished_at=max(times),
    )


def _message(result: Any) -> str:
    """A message of dbt in one line; a refusal of packages/headrace_dbt without dbt's frame and trace of macros.

    dbt prints a macro's error as `Compilation Error in model NAME (PATH)`, the text, and the macros that were called.
    """
    text = one_line(result.message)
    where = f"{result.node.schema}.{result.node.alias}: "
    refusal = _REFUSAL.fullmatch(text)
    if refusal is None or not refusal["text"].startswith(where):
        return text
    return f"{refusal['text']} ({refusal['path']})"


def one_line(text: str) -> str:
    """Dbt's text in one line, in visible characters."""
    return shown(" ".join(text.split()))
