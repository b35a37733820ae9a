"""Faults of the dbt project: what dbt cannot parse, marts without YAML, and sources that no declaration fills."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.catalog import Declarations
from headrace.check.finding import Finding
from headrace.contracts.columns import columns_of
from headrace.dataset import Dataset
from headrace.marts.parse import Parsed, parse_project
from headrace.settings import Settings

MARTS = "models/marts/"
SCHEMA = "staging"  # of the sources that the loader fills
MAINTAINED = "maintained"  # the materialization of packages/headrace_dbt


def model_findings(settings: Settings, declarations: Declarations) -> Iterator[Finding]:
    """The faults of the project in HEADRACE_DBT_DIR."""
    project = settings.dbt_dir
    if not (project / "dbt_project.yml").is_file():
        yield Finding(str(project), None, "no dbt_project.yml", "a dbt project", "set HEADRACE_DBT_DIR")
        return
    parsed = parse_project(project)
    for fault in parsed.faults:
        yield Finding(str(project / (fault.file or "dbt_project.yml")), fault.line, f"dbt: {fault.message}")
    if parsed.manifest is None:
        return
    without_yaml = [path for path in parsed.left_out if path.startswith(MARTS) and path.endswith(".sql")]
    for node in parsed.manifest.nodes.values():
        if str(node.resource_type) == "model":
            if node.original_file_path.startswith(MARTS) and node.patch_path is None:
                without_yaml.append(node.original_file_path)
            for found, expected, remedy in _of_model(node, parsed):
                yield Finding(str(project / node.original_file_path), None, found, expected, remedy)
    yield from _without_yaml(project, without_yaml)
    for source in parsed.manifest.sources.values():
        if source.schema == SCHEMA:
            path = str(project / source.original_file_path)
            line = _line_of(path, source.name)
            for found, expected, remedy in _of_source(source, declarations, settings):
                yield Finding(path, line, found, expected, remedy)


_Fault = tuple[str, str, str]  # found, expected, remedy


def _without_yaml(project: Path, paths: list[str]) -> Iterator[Finding]:
    """Models that no YAML describes; a YAML file that dbt could not parse counts by its text."""
    texts = [path.read_text(errors="replace") for path in project.glob("models/**/*.y*ml")]
    for path in paths:
        name = Path(path).stem
        if not any(re.search(rf"- name: ['\"]?{re.escape(name)}['\"]?\s*$", text, re.MULTILINE) for text in texts):
            yield Finding(
                str(project / path),
                None,
                "no YAML",
                "its description, columns and data tests",
                f"write {name}.yml beside it",
            )


def _of_model(node: Any, parsed: Parsed) -> Iterator[_Fault]:
    if node.config.materialized != MAINTAINED:
        return
    sources = [parsed.manifest.sources[name] for name in node.depends_on.nodes if name in parsed.manifest.sources]
    staged = sorted({_meta(source).get("parent") or source.name for source in sources if source.schema == SCHEMA})
    grain = node.config.get("grain")
    if len(staged) > 1 and not grain:
        yield (
            f"reads the datasets {', '.join(staged)} without a grain",
            "one dataset, or models",
            "make a model of each dataset and read those",
        )


def _of_source(source: Any, declarations: Declarations, settings: Settings) -> Iterator[_Fault]:
    name, meta = source.identifier, _meta(source)
    if meta.get("parent") in declarations.names:
        yield from _of_elements(source, declarations.datasets.get(meta["parent"]))
        return
    if name not in declarations.names:
        yield f"source staging.{name}, which no dataset fills", f"{settings.datasets_dir / name}.py", "declare it"
    dataset = declarations.datasets.get(name)
    if dataset is None:
        return
    columns = _columns(dataset)
    key = meta.get("key")
    for column in [key] if isinstance(key, str) else key or []:
        if str(column).strip('"') not in columns:
            yield f"key {column!r} of source staging.{name}", _one_of(dataset, columns), "correct meta.key"
    expected = "position" if dataset.compiled.has_positions else "offset"
    if (found := meta.get("versions", "offset")) != expected:
        yield (
            f"versions {found!r} of source staging.{name}",
            f"{expected!r}: the format is {dataset.format.name}",
            f"write meta: {{versions: {expected}}}",
        )
    for column in source.columns:
        if column.strip('"') not in columns and not column.startswith("_"):
            yield f"column {column!r} of source staging.{name}", _one_of(dataset, columns), "correct its name"


def _of_elements(source: Any, dataset: Dataset | None) -> Iterator[_Fault]:
    """The faults of a source whose rows are the elements of a dataset's child."""
    if dataset is None:
        return
    children = {dataset.child_table_name(child.name): child for child in dataset.children}
    child = children.get(source.identifier)
    if child is None:
        names = ", ".join(children) or "none"
        yield f"source staging.{source.identifier} of {dataset.name}", f"a child's table: {names}", "declare the child"
        return
    columns = {column.name for column in columns_of(child.contract)[0]}
    for column in source.columns:
        if column.strip('"') not in columns and not column.startswith("_"):
            expected = f"a column of {child.contract.__name__}: {', '.join(sorted(columns))}"
            yield f"column {column!r} of source staging.{source.identifier}", expected, "correct its name"


def _meta(source: Any) -> dict[str, Any]:
    return (source.config.meta if source.config else None) or source.meta or {}


def _columns(dataset: Dataset) -> set[str]:
    return {column.name for column in dataset.compiled.columns}


def _one_of(dataset: Dataset, columns: set[str]) -> str:
    return f"a column of {dataset.contract.__name__}: {', '.join(sorted(columns))}"


def _line_of(path: str, name: str) -> int | None:
    """The line of a YAML file that names a source's table."""
    try:
        with Path(path).open(errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if re.fullmatch(rf"\s*- name: ['\"]?{re.escape(name)}['\"]?\s*", line):
                    return number
    except OSError:
        pass
    return None
