"""A dataset's declaration as text: what its contract expects, the column of each field, the reasons of a breach."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from headrace.catalog import dag_of
from headrace.dataset import Dataset
from headrace.formats import JSON
from headrace.monitor.rules import (
    FieldDescription,
    child_fields,
    fields,
    is_keyed,
    model_rules,
    reasons,
    record_reasons,
)
from headrace.output import aligned
from headrace.postgres.staging import SCHEMA, bookkeeping_columns, replaced_name

BOOKKEEPING_MEANING = {
    "_generation": "number of the source's generation: a topic by its id, a file by its content",
    "_partition": "where the record was",
    "_offset": "where the record was; in a file the line's number",
    "_timestamp": "the record's time at the source",
    "_key": "the record's key, unchanged or masked",
    "_headers": "the record's headers, in order",
    "_deleted": "the record deletes its key: a tombstone, or the event of a deletion",
    "_extra": "fields that the contract does not name",
    "_batch_id": "the line of headrace.batches that staged it",
    "_schema_id": "the registry's id of the schema that the record was written by",
    "_position": "where the source's log has the change; the first number is the log",
    "_op": "c, u, d or r: the row was created, updated, deleted, or read by a snapshot",
}


def lines(dataset: Dataset) -> Iterator[str]:
    """The contract and the columns of a dataset, as lines of text."""
    yield f"{dataset.name}: {dataset.description}" if dataset.description else dataset.name
    yield ""
    yield from aligned(list(_facts(dataset)))
    yield ""
    yield from _field_lines(fields(dataset))
    yield ""
    yield "a record as a whole: " + ", ".join(record_reasons(dataset))
    for rule, found in model_rules(dataset.contract):
        yield f"a rule over several fields: {rule}: {', '.join(found)}"
    yield f"other fields are kept in {SCHEMA}.{dataset.name}._extra"
    yield ""
    yield f"behind the contract's columns {SCHEMA}.{dataset.name} has"
    yield from aligned([(f"  {name}", kind, _meaning(name)) for name, kind, _ in bookkeeping_columns(dataset)])
    yield ""
    yield from _child_lines(dataset)
    yield "commands"
    yield from (f"  {command}" for command in _commands(dataset))


def _field_lines(described: Sequence[FieldDescription]) -> Iterator[str]:
    rows = [("field", "column", "type", "required", "asked for", "a breach is")]
    rows += [
        (
            field.name,
            field.column,
            field.sql_type,
            "yes" if field.required else "no",
            ", ".join(field.constraints),
            ", ".join(field.reasons),
        )
        for field in described
    ]
    yield from aligned(rows)


def _child_lines(dataset: Dataset) -> Iterator[str]:
    for child in dataset.children:
        optional = "" if child.required else "; without the array a record has none"
        yield f"each element of {child.explode} is a row of {SCHEMA}.{dataset.child_table_name(child.name)}{optional}"
        yield from _field_lines(child_fields(dataset)[child.name])
        yield "behind them are the record's _generation, _partition and _offset, the element's _index and _extra"
        yield ""


def _meaning(column: str) -> str:
    return BOOKKEEPING_MEANING.get(column) or f"the number of its {column.removeprefix('_count_')}"


def document(dataset: Dataset) -> dict[str, Any]:
    """The same as JSON types."""
    facts = dict(_facts(dataset))
    columns = bookkeeping_columns(dataset)
    return {
        "dataset": dataset.name,
        "description": dataset.description,
        "facts": facts,
        "key": list(dataset.key_fields),
        "fields": [asdict(field) for field in fields(dataset)],
        "children": {name: [asdict(field) for field in found] for name, found in child_fields(dataset).items()},
        "reasons": reasons(dataset),
        "record_reasons": record_reasons(dataset),
        "rules": [{"rule": rule, "reasons": list(found)} for rule, found in model_rules(dataset.contract)],
        "bookkeeping": [{"column": name, "type": kind} for name, kind, _ in columns],
        "commands": list(_commands(dataset)),
    }


def _facts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    source = dataset.source
    if source.created_partitions is not None:
        made = _partitions(source.created_partitions)
        yield "source", f"{source.target}; {made} if `headrace produce` creates it"
    else:
        yield "source", source.target
    if source.dead_letter_topic is not None:
        made = _partitions(source.dead_letter_partitions)
        yield "dead letters", f"headrace.dead_letters, and topic {source.dead_letter_topic}; {made} if created"
    else:
        yield "dead letters", "headrace.dead_letters"
    if dataset.key is None:
        yield "key", "none: every record is one of its own"
    else:
        keyed = "; a record's key equals it" if is_keyed(dataset) else ""
        columns = "column" if len(dataset.key_columns) == 1 else "columns"
        yield "key", f"{', '.join(dataset.key_fields)}, {columns} {', '.join(dataset.key_columns)}{keyed}"
    if dataset.where is not None:
        yield "records", f"those with {dataset.where}; the others are ignored, and counted in headrace.batches.ignored"
    if dataset.time_column is not None:
        yield "time", f"{dataset.time_column}, column {dataset.time_column.lower()}"
    yield "zone", f"{dataset.zone}, for times that name none"
    if dataset.format != JSON:
        yield "format", dataset.format.description
    if dataset.key_format is not None:
        yield "key's format", dataset.key_format.description
    yield "limit", f"a value of more than {dataset.max_value_bytes} bytes is a dead letter"
    yield (
        "table",
        f"{SCHEMA}.{dataset.name}, and {SCHEMA}.{replaced_name(dataset.name)} for rows that a reload replaced",
    )
    if source.is_file:
        yield "DAG", f"load_{dataset.name}, every hour"
    else:
        dag = dag_of(dataset.name, is_file=False, dag=dataset.dag)
        shared = "" if dataset.dag is None else ", or as often as another dataset of this DAG"
        yield "DAG", f"{dag}, every {dataset.schedule_s} s{shared}"
    yield from _pace(dataset)


def _pace(dataset: Dataset) -> Iterator[tuple[str, str]]:
    if dataset.max_records_per_s is not None:
        yield "rate limit", f"{dataset.max_records_per_s:g} records per second and run"
    if dataset.priority != Dataset.priority:
        yield "priority", f"{dataset.priority}; others have {Dataset.priority} by default, the highest is drained first"


def _commands(dataset: Dataset) -> Iterator[str]:
    name = dataset.name
    yield from dataset.source.commands(name)
    yield f"headrace dead-letters {name}"
    yield f"headrace replay {name} --dry-run"
    yield f"headrace verify {name}"


def _partitions(number: int) -> str:
    return "1 partition" if number == 1 else f"{number} partitions"
