"""The rules of a dataset's contract, and the reasons that a breach of each gives."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, PlainValidator

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
    own = {reason for model in models for _, found in model_rules(model) for reason in found}
    every = [*fields(dataset), *(field for found in child_fields(dataset).values() for field in found)]
    of_fields = {reason for field in every for reason in field.reasons}
    return sorted({*record_reasons(dataset), *of_fields, *own})


def refuse_unknown_reason(dataset: Dataset, reason: str | None) -> None:
    """Raise UsageError for a reason that no dead letter of the dataset can have; call it when none was found."""
    known = reasons(dataset)
    if reason is None or reason in {*known, *(each.value for each in Reason)}:
        return
    raise UsageError(
        f"{dataset.name}: found no dead letter of reason {reason!r}{similar(reason, known)}; "
        f"expected one of {', '.join(known)}"
    )


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


def model_rules(model: type[BaseModel]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The rules over several fields of a contract, each with the reasons of a breach."""
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


def record_reasons(dataset: Dataset) -> list[str]:
    """The reasons of a record as a whole, whatever its fields are."""
    found: list[str] = [*Reason.of(Scope.RECORD)]
    if is_keyed(dataset):
        found += Reason.of(Scope.KEY)
    if dataset.source.has_malformed_rows:
        found += Reason.of(Scope.ROW)
    if dataset.format.has_schema_ids:
        found += Reason.of(Scope.SCHEMA)
    if dataset.compiled.changes is not None:
        found += [word for word in (Reason.UNDECODABLE, *Reason.of(Scope.CHANGE)) if word not in found]
    return [*found, *Reason.of(Scope.SERVER)]


def is_keyed(dataset: Dataset) -> bool:
    """Whether a record's key must equal a field."""
    return dataset.key is not None and dataset.keyed and dataset.source.has_record_keys


def _choices(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    for part in get_args(annotation):
        if get_origin(part) is Literal:
            return get_args(part)
    return ()


def _once(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
