"""What a field's annotation says: the type of its column, whether it may be null, what stands in its Annotated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, is_typeddict

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headrace.contracts.column_types import COLUMN_TYPES

SCALARS: dict[Any, str] = {found.python: found.sql_type for found in COLUMN_TYPES if found.python is not None}
DOCUMENTS = (dict, list, Any)


@dataclass(frozen=True, slots=True)
class SqlType:
    """The Postgres type of a field's column, if the Python type does not determine it."""

    name: str


class InvalidColumn(Exception):
    """A fault of a declaration; never raised outside contracts/."""


def sql_type_of(annotation: Any) -> str:
    """The column type of an annotation; raises InvalidColumn with the types to use instead."""
    annotation, marked = _unwrapped(annotation)
    if marked:
        return marked
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _one({sql_type_of(part) for part in get_args(annotation) if part is not type(None)})
    if origin is Literal:
        return _of_values([value for value in get_args(annotation) if value is not None])
    if origin is list:
        return _array(get_args(annotation)[0])
    if origin is dict or annotation in DOCUMENTS or is_typeddict(annotation):
        return "jsonb"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "jsonb"
        if issubclass(annotation, Enum):
            return _of_values([member.value for member in annotation])
        if annotation in SCALARS:
            return SCALARS[annotation]
    raise InvalidColumn(
        f"is {getattr(annotation, '__name__', annotation)}, which no column holds; expected "
        f"{', '.join(kind.__name__ for kind in SCALARS)}, an Enum, a Literal, a list of these, a dict, or a model"
    )


def _unwrapped(annotation: Any) -> tuple[Any, str | None]:
    """An annotation without Annotated, `type` statements and NewType; and the column type named in one of them."""
    while True:
        if get_origin(annotation) is Annotated:
            marked = next((m.name for m in get_args(annotation)[1:] if isinstance(m, SqlType)), None)
            if marked:
                return annotation, marked
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):  # type X = ...
            annotation = annotation.__value__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, TypeVar):
            annotation = annotation.__bound__ or Any
        else:
            return annotation, None


def _one(found: set[str]) -> str:
    if len(found) != 1:
        raise InvalidColumn(f"may be {' or '.join(sorted(found)) or 'nothing'}, expected one type: a column has one")
    return found.pop()


def _of_values(values: Sequence[Any]) -> str:
    kinds = {type(value.value if isinstance(value, Enum) else value) for value in values}
    if not kinds <= {str, int, bool} or len(kinds) != 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "no values"
        raise InvalidColumn(f"is a choice of {found}, expected one type: all texts, or all whole numbers")
    return SCALARS[kinds.pop()]


def _array(element: Any) -> str:
    inner, marked = _unwrapped(element)
    if get_origin(inner) in (Union, UnionType):
        present = [part for part in get_args(inner) if part is not type(None)]
        return _array(present[0]) if len(present) == 1 else "jsonb"
    if get_origin(inner) is list:
        return "jsonb"  # Postgres's arrays are rectangular, and JSON's are not
    sql_type = marked or sql_type_of(inner)
    return sql_type if sql_type == "jsonb" else f"{sql_type}[]"


def is_nullable(annotation: Any) -> bool:
    """Whether an annotation allows null."""
    annotation, _ = _unwrapped(annotation)
    if annotation in (None, type(None), Any):
        return True
    if get_origin(annotation) is Literal:
        return None in get_args(annotation)
    return get_origin(annotation) in (Union, UnionType) and any(is_nullable(part) for part in get_args(annotation))


def metadata(info: FieldInfo) -> Iterator[Any]:
    """The metadata of a field's Annotated, also inside `X | None`."""
    yield from info.metadata
    for part in get_args(info.annotation):
        if get_origin(part) is Annotated:
            for item in get_args(part)[1:]:
                yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def marks_of_field(info: FieldInfo) -> tuple[Any, ...]:
    """What stands in the Annotated of a field, also behind names for types and in unions."""
    return (*metadata(info), *marks_of(info.annotation))


def has_mark(model: type[BaseModel], kind: type) -> bool:
    """Whether a field of a model has an item of this kind in its Annotated; the model need not be complete."""
    return any(isinstance(mark, kind) for info in model.model_fields.values() for mark in marks_of_field(info))


def marks_of(annotation: Any) -> Iterator[Any]:
    """What an annotation itself says in Annotated, behind names for types and in unions."""
    if get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            yield from item.metadata if isinstance(item, FieldInfo) else (item,)
        yield from marks_of(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):
        yield from marks_of(annotation.__value__)
    elif isinstance(annotation, NewType):
        yield from marks_of(annotation.__supertype__)
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from marks_of(part)


def inner_marks(annotation: Any, seen: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """What stands in Annotated below an annotation: in the items of a list, the fields of a model."""
    inner, _ = _unwrapped(annotation)
    if get_origin(inner) in (Union, UnionType):
        for part in get_args(inner):
            yield from inner_marks(part, seen)
    elif isinstance(inner, type) and issubclass(inner, BaseModel):
        if inner not in seen:
            for info in inner.model_fields.values():
                yield from marks_of_field(info)
                yield from inner_marks(info.annotation, seen | {inner})
    elif get_origin(inner) is not Literal:
        for part in get_args(inner):
            yield from (*marks_of(part), *inner_marks(part, seen))
