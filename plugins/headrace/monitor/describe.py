"""A dataset's declaration as text: what its contract expects, the column of each field, the reasons of a breach."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, PlainValidator

from headrace.catalog import dag_of
from headrace.contracts.annotations import SqlType, metadata
from headrace.contracts.column_types import column_type
from headrace.contracts.columns import Column
from headrace.contracts.flattened import owner
from headrace.contracts.reasons import Reason, Scope, raised_reasons
from headrace.contracts.rejection import json_path
from headrace.contracts.times import PARSERS
from headrace.dataset import Dataset
from headrace.dataset_files import similar
from headrace.exceptions import UsageError
from headrace.formats import JSON
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
MASK_WORDS = {
    "hmac": "stored as an HMAC of the value",
    "last4": "stored as its last four characters",
    "drop": "not stored",
}
LIMITS = {
    "ge": (">= {}", Reason.OUT_OF_RANGE),
    "gt": ("> {}", Reason.OUT_OF_RANGE),
    "le": ("<= {}", Reason.OUT_OF_RANGE),
    "lt": ("< {}", Reason.OUT_OF_RANGE),
    "multiple_of": ("a multiple of {}", Reason.OUT_OF_RANGE),
    "max_digits": ("at most {} digits", Reason.OUT_OF_RANGE),
    "decimal_places": ("at most {} decimals", Reason.OUT_OF_RANGE),
    "min_length": ("at least {} long", Reason.OUT_OF_RANGE),
    "max_length": ("at most {} long", Reason.TOO_LARGE),
    "pattern": ("like {}", Reason.INVALID_VALUE),
}


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """A field of the contract and its column: its rules, and the reasons that a breach gives."""

    name: str
    column: str
    sql_type: str
    required: bool
    constraints: tuple[str, ...]
    reasons: tuple[str, ...]


def fields(dataset: Dataset) -> list[FieldDescription]:
    """The fields of a dataset's contract, in its order."""
    return [_field(dataset.contract, column) for column in dataset.compiled.columns]


def child_fields(dataset: Dataset) -> dict[str, list[FieldDescription]]:
    """The fields of each child's contract, by the child's name."""
    compiled = dataset.compiled.children.each if dataset.compiled.children is not None else ()
    return {
        child.name: [_field(child.contract, column) for column in found.contract.columns]
        for child, found in zip(dataset.children, compiled, strict=True)
    }


def reasons(dataset: Dataset) -> list[str]:
    """Every reason that a dead letter of the dataset may have, in alphabetical order."""
    models = [dataset.contract, *(child.contract for child in dataset.children)]
    own = {reason for model in models for _, found in _model_rules(model) for reason in found}
    every = [*fields(dataset), *(field for found in child_fields(dataset).values() for field in found)]
    of_fields = {reason for field in every for reason in field.reasons}
    return sorted({*_record_reasons(dataset), *of_fields, *own})


def refuse_unknown_reason(dataset: Dataset, reason: str | None) -> None:
    """Raise UsageError for a reason that no dead letter of the dataset can have; call it when none was found."""
    known = reasons(dataset)
    if reason is None or reason in {*known, *(each.value for each in Reason)}:
        return
    raise UsageError(
        f"{dataset.name}: found no dead letter of reason {reason!r}{similar(reason, known)}; "
        f"expected one of {', '.join(known)}"
    )


def lines(dataset: Dataset) -> Iterator[str]:
    """The contract and the columns of a dataset, as lines of text."""
    yield f"{dataset.name}: {dataset.description}" if dataset.description else dataset.name
    yield ""
    yield from aligned(list(_facts(dataset)))
    yield ""
    yield from _field_lines(fields(dataset))
    yield ""
    yield "a record as a whole: " + ", ".join(_record_reasons(dataset))
    for rule, found in _model_rules(dataset.contract):
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
        "record_reasons": _record_reasons(dataset),
        "rules": [{"rule": rule, "reasons": list(found)} for rule, found in _model_rules(dataset.contract)],
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
        keyed = "; a record's key equals it" if _is_keyed(dataset) else ""
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


def _field(contract: type[BaseModel], column: Column) -> FieldDescription:
    model, name = owner(contract, column)
    info = model.model_fields[name]
    constraints: list[str] = []
    found: list[str] = [Reason.MISSING_FIELD] if column.required else []
    choices = _choices(info.annotation)
    if choices:
        constraints.append("one of " + ", ".join(repr(choice) for choice in choices))
        found.append(Reason.INVALID_VALUE)
    else:
        found.append(Reason.WRONG_TYPE)
    for item in metadata(info):
        if isinstance(item, SqlType):
            continue
        if isinstance(item, PlainValidator):
            parser = PARSERS.get(item.func)
            words, its_reasons = (parser.words, parser.reasons) if parser else _rule(item.func)
            constraints.append(words)
            found += its_reasons
            continue
        for limit, (words, reason) in LIMITS.items():
            value = getattr(item, limit, None)
            if value is not None:
                constraints.append(words.format(value))
                found.append(reason)
        func = getattr(item, "func", None)  # BeforeValidator, AfterValidator
        if func is not None:
            words, its_reasons = _rule(func)
            constraints.append(words)
            found += its_reasons
    if column_type(column.value_type).has_bounds:
        found.append(Reason.OUT_OF_RANGE)
    for decorator in model.__pydantic_decorators__.field_validators.values():
        if name in decorator.info.fields or "*" in decorator.info.fields:
            words, its_reasons = _rule(decorator.func)
            constraints.append(words)
            found += its_reasons
    if column.place is not None or column.inner:
        constraints.append(f"at {json_path(column.path)}")
    if column.masked is not None:
        constraints.append(MASK_WORDS[column.masked.how])
    return FieldDescription(
        column.title, column.name, column.sql_type, column.required, _once(constraints), _once(found)
    )


def _model_rules(model: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for decorator in model.__pydantic_decorators__.model_validators.values():
        yield _rule(decorator.func)


def _rule(function: Callable[..., Any]) -> tuple[str, tuple[str, ...]]:
    """A validator of the contract: its docstring or name, and the reasons in its source."""
    function = getattr(function, "__func__", function)
    document = inspect.getdoc(function)
    words = document.splitlines()[0].rstrip(".") if document else function.__name__.replace("_", " ")
    try:
        found = raised_reasons(inspect.getsource(function))
    except (OSError, TypeError):
        found = []
    return words, tuple(found or (Reason.BUSINESS_RULE,))


def _record_reasons(dataset: Dataset) -> list[str]:
    found: list[str] = [*Reason.of(Scope.RECORD)]
    if _is_keyed(dataset):
        found += Reason.of(Scope.KEY)
    if dataset.source.has_malformed_rows:
        found += Reason.of(Scope.ROW)
    if dataset.format.has_schema_ids:
        found += Reason.of(Scope.SCHEMA)
    if dataset.compiled.changes is not None:
        found += [word for word in (Reason.UNDECODABLE, *Reason.of(Scope.CHANGE)) if word not in found]
    return [*found, *Reason.of(Scope.SERVER)]


def _is_keyed(dataset: Dataset) -> bool:
    return dataset.key is not None and dataset.keyed and dataset.source.has_record_keys


def _choices(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for part in get_args(annotation):
        if get_origin(part) is Literal:
            return get_args(part)
    return ()


def _partitions(number: int) -> str:
    return "1 partition" if number == 1 else f"{number} partitions"


def _once(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
