"""The texts of the dbt models of a draft: stg_ with its source, the mart of current versions, and their YAML."""

import json
from pathlib import Path
from string import Template

from headrace.infer.declaration_text import is_optional_in
from headrace.infer.draft import Draft
from headrace.sql_files import read_sql

COORDINATES = {
    "_generation": "The generation of the source that the record is from.",
    "_partition": "The record's partition.",
    "_offset": "The record's offset.",
}


def model_texts(draft: Draft, project: Path) -> dict[str, str]:
    """The texts by their paths below the project's folder."""
    staged = f"stg_{draft.system}__{draft.name}"
    mart = _mart(draft, "maintained", " " * 4) if is_maintained(project) else _mart(draft, "incremental", " " * 8)
    return {
        f"models/staging/{staged}.sql": _staged(draft),
        f"models/staging/{staged}.yml": _staged_yaml(draft, staged),
        f"models/marts/{draft.name}.sql": mart,
        f"models/marts/{draft.name}.yml": _mart_yaml(draft),
    }


def is_maintained(project: Path) -> bool:
    """Whether the project has the materialization `maintained`; else a mart claims batches itself."""
    return (project / "packages" / "headrace_dbt").is_dir()


def _key(draft: Draft) -> str | None:
    return draft.key.field.column if draft.key else None


def _columns(draft: Draft) -> list[str]:
    """The columns of the mart: a row without a key is known by its coordinates."""
    return [field.column for field in draft.fields] + ([] if draft.key else list(COORDINATES))


def _unique_key(draft: Draft) -> str:
    names = [f"'{name}'" for name in COORDINATES]
    return f"'{_key(draft)}'" if draft.key else f"[{', '.join(names)}]"


def _listed(columns: list[str], indent: str) -> str:
    return f",\n{indent}".join(columns)


def _staged(draft: Draft) -> str:
    columns = "".join(f"        '{field.column}',\n" for field in draft.fields)
    return f"{{{{\n    staged_versions('{draft.name}', [\n{columns}    ])\n}}}}\n"


def _mart(draft: Draft, template: str, indent: str) -> str:
    """A mart's text, from sql/TEMPLATE.sql."""
    return Template(read_sql(__package__, template).decode()).substitute(
        name=draft.name,
        staged=f"stg_{draft.system}__{draft.name}",
        unique_key=_unique_key(draft),
        key_columns=_unique_key(draft).strip("[]"),
        key=f", key='{_key(draft)}'" if draft.key else "",
        columns=_listed(_columns(draft), indent),
        emptied=_is_emptied(draft),
    )


def _is_emptied(draft: Draft) -> str:
    """The condition of a row whose key has no version any more: what every record has is null, or all columns are."""
    fields = [field for field in draft.fields if not draft.key or field is not draft.key.field]
    required = [field for field in fields if not is_optional_in(draft, field)]
    return " and ".join(f"{field.column} is null" for field in required[:1] or fields)


_STAGED_YAML = Template("""sources:
  - name: staging
    tables:
      - name: $name
        description: $description
        config:
$meta          loaded_at_query: select max(committed_at) from headrace.batches where dataset = '$name'

models:
  - name: $staged
    description: One row per staged version, including those that a reload replaced (is_replaced).
    columns:
$columns""")


def _staged_yaml(draft: Draft, staged: str) -> str:
    return _STAGED_YAML.substitute(
        name=draft.name,
        description=json.dumps(f"One row per staged record of {draft.source.target}, tombstones included."),
        meta=f"          meta: {{key: {_key(draft)}}}\n" if draft.key else "",
        staged=staged,
        columns="".join(_column(name, text) for name, text in _described(draft).items()),
    )


def _mart_yaml(draft: Draft) -> str:
    grain = f"{_key(draft)}, in its current version; a tombstone removes it" if draft.key else "record"
    described = _described(draft) | ({} if draft.key else COORDINATES)
    columns = ""
    optional = {field.column for field in draft.fields if is_optional_in(draft, field)}
    for name, text in described.items():
        tests = "" if name in optional else "not_null, unique" if name == _key(draft) else "not_null"
        columns += _column(name, text) + (f"        data_tests: [{tests}]\n" if tests else "")
    return f"models:\n  - name: {draft.name}\n    description: One row per {grain}.\n    columns:\n{columns}"


def _described(draft: Draft) -> dict[str, str]:
    return {
        field.column: f"The record's {field.source_name if field.source_name.isidentifier() else field.name}."
        for field in draft.fields
    }


def _column(name: str, text: str) -> str:
    return f"      - name: {name}\n        description: {text}\n"
