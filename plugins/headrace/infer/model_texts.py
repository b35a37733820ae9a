"""The texts of the dbt models of a draft: stg_ with its source, the mart of current versions, and their YAML."""

import json
from string import Template

from headrace.infer.declaration_text import is_optional_in
from headrace.infer.draft import Draft
from headrace.sql_files import read_sql

COORDINATES = {
    "_generation": "The generation of the source that the record is from.",
    "_partition": "The record's partition.",
    "_offset": "The record's offset.",
}


def model_texts(draft: Draft) -> dict[str, str]:
    """The texts by their paths below the project's folder."""
    staged = f"stg_{draft.system}__{draft.name}"
    return {
        f"models/staging/{staged}.sql": _staged(draft),
        f"models/staging/{staged}.yml": _staged_yaml(draft, staged),
        f"models/marts/{draft.name}.sql": _mart(draft),
        f"models/marts/{draft.name}.yml": _mart_yaml(draft),
    }


def _key(draft: Draft) -> str | None:
    return draft.key.field.column if draft.key else None


def _versions(draft: Draft) -> str:
    """How `current` orders versions: the changes of a source have its own positions."""
    return ", versions: position" if (draft.format_text or "").startswith("Debezium(") else ""


def _columns(draft: Draft) -> list[str]:
    """The columns of the mart: a row without a key is known by its coordinates."""
    return [field.column for field in draft.fields] + ([] if draft.key else list(COORDINATES))


def _unique_key(draft: Draft) -> str:
    names = [f"'{name}'" for name in COORDINATES]
    return f"'{_key(draft)}'" if draft.key else f"[{', '.join(names)}]"


def _staged(draft: Draft) -> str:
    return _text("staged", name=draft.name, columns=",\n        ".join(_columns(draft)))


def _mart(draft: Draft) -> str:
    return _text(
        "mart",
        staged=f"stg_{draft.system}__{draft.name}",
        unique_key=_unique_key(draft),
        columns=",\n    ".join(_columns(draft)),
    )


def _text(template: str, **values: str) -> str:
    """sql/TEMPLATE.sql with its values."""
    return Template(read_sql(__package__, template).decode()).substitute(values)


_STAGED_YAML = Template("""sources:
  - name: staging
    tables:
      - name: $name
        description: $description
        config:
$meta          loaded_at_query: select max(committed_at) from headrace.batches where dataset = '$name'

models:
  - name: $staged
    description: $grain
    columns:
$columns""")


def _staged_yaml(draft: Draft, staged: str) -> str:
    return _STAGED_YAML.substitute(
        name=draft.name,
        description=json.dumps(f"One row per staged record of {draft.source.target}, tombstones included."),
        meta=f"          meta: {{key: {_key(draft)}{_versions(draft)}}}\n" if draft.key else "",
        staged=staged,
        grain=_grain(draft),
        columns="".join(_column(name, text) for name, text in _described(draft).items()),
    )


def _mart_yaml(draft: Draft) -> str:
    described = _described(draft)
    columns = ""
    optional = {field.column for field in draft.fields if is_optional_in(draft, field)}
    for name, text in described.items():
        tests = "" if name in optional else "not_null, unique" if name == _key(draft) else "not_null"
        columns += _column(name, text) + (f"        data_tests: [{tests}]\n" if tests else "")
    return f"models:\n  - name: {draft.name}\n    description: {_grain(draft)}\n    columns:\n{columns}"


def _grain(draft: Draft) -> str:
    return (
        f"One row per {_key(draft)}, in its current version; a tombstone removes it."
        if draft.key
        else "One row per record."
    )


def _described(draft: Draft) -> dict[str, str]:
    return {
        field.column: f"The record's {field.source_name if field.source_name.isidentifier() else field.name}."
        for field in draft.fields
    } | ({} if draft.key else COORDINATES)


def _column(name: str, text: str) -> str:
    return f"      - name: {name}\n        description: {text}\n"
