"""From a contract's fields to the columns of its staging table; refuses contracts without valid columns.

A type whose values Postgres would round, refuse or be unable to index is refused here, when the dataset is
declared: a record must never fail in COPY.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, is_typeddict

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo

from headrace.contracts import places
from headrace.contracts.column_types import COLUMN_TYPES, INTEGER_MAX
from headrace.contracts.masks import Masked
from headrace.contracts.places import Place

NUL = "\0"  # before the names that fields get of their places
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
# every table has these already (Postgres, 5.6 System Columns)
SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
KEY_LENGTH_MAX = 255  # keys are indexed: at most 1,020 bytes, and a btree entry of two of them has to stay below 2,704
SCALARS: dict[Any, str] = {found.python: found.sql_type for found in COLUMN_TYPES if found.python is not None}
DOCUMENTS = (dict, list, Any)


@dataclass(frozen=True, slots=True)
class SqlType:
    """The Postgres type of a field's column, if the Python type does not determine it."""

    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """One contract column of a staging table.

    name: the field's name in lower case, as in Postgres. field: its name in the model. required: whether a record must
    have it. nullable: whether its value may be null. source_names: what records call it, the field's name or its
    aliases; the first that a record has counts. masked: how its values are masked. value_type: Postgres's type of the
    values themselves; sql_type is the column's, which is text for masks. place: where a record has it, if not under
    a name of its document.
    """

    name: str
    field: str
    sql_type: str
    required: bool
    nullable: bool = False
    source_names: tuple[str, ...] = ()
    masked: Masked | None = None
    value_type: str = ""
    place: Place | None = None

    @property
    def is_masked(self) -> bool:
        """Whether its values are stored masked."""
        return self.masked is not None


class InvalidColumn(Exception):
    """A fault of a declaration; never raised outside contracts/."""


def columns_of(model: type[BaseModel]) -> tuple[list[Column], list[str]]:
    """A contract's columns in the order of its fields, and the faults of fields that cannot be a column."""
    columns: list[Column] = []
    faults: list[str] = []
    by_name: dict[str, str] = {}
    for field, info in model.model_fields.items():
        name = field.lower()
        try:
            _check_name(field, name, by_name)
            marked = next((item.name for item in metadata(info) if isinstance(item, SqlType)), None)
            sql_type = marked or _sql_type(info.annotation)
            _check_digits(sql_type, info)
            columns.append(_column(name, field, info, sql_type))
        except InvalidColumn as fault:
            faults.append(f"field {field!r} {fault}")
        by_name.setdefault(name, field)
    by_source: dict[str, str] = {}
    for column in columns:
        for source_name in column.source_names:
            other = by_source.setdefault(source_name, column.field)
            if other != column.field:
                name = source_name.removeprefix(NUL)
                faults.append(f"field {column.field!r} reads {name!r}, as field {other!r} does; expected two names")
    return columns, [*faults, *places.faults(columns)]


def _column(name: str, field: str, info: FieldInfo, value_type: str) -> Column:
    masked = _masked(info, value_type)
    place = next((item for item in (*metadata(info), *_marks(info.annotation)) if isinstance(item, Place)), None)
    if place is not None and (info.validation_alias is not None or info.alias is not None):
        raise InvalidColumn(f"has an alias and {type(place).__name__}, expected one of the two")
    return Column(
        name,
        field,
        "text" if masked and masked.how != "drop" else value_type,
        info.is_required(),
        is_nullable(info.annotation),
        (place.alias,) if place is not None else _source_names(field, info),
        masked,
        value_type,
        place,
    )


def _masked(info: FieldInfo, value_type: str) -> Masked | None:
    """How a field is masked; raises InvalidColumn where its masks could not hide it."""
    found = {item for item in (*metadata(info), *_marks(info.annotation)) if isinstance(item, Masked)}
    if any(isinstance(item, Masked) for item in _inner_marks(info.annotation)):
        raise InvalidColumn("has a Masked inside it, which would hide nothing; mask the field itself")
    if len(found) > 1:
        raise InvalidColumn(f"is masked in {len(found)} ways, expected one")
    masked = found.pop() if found else None
    if masked and (fault := masked.fault(value_type)):
        raise InvalidColumn(fault)
    return masked


def _marks(annotation: Any) -> Iterator[Any]:
    """What an annotation itself says in Annotated, behind names for types and in unions."""
    if get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            yield from item.metadata if isinstance(item, FieldInfo) else (item,)
        yield from _marks(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):
        yield from _marks(annotation.__value__)
    elif isinstance(annotation, NewType):
        yield from _marks(annotation.__supertype__)
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _marks(part)


def _inner_marks(annotation: Any, seen: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """What stands in Annotated below an annotation: in the items of a list, the fields of a model."""
    inner, _ = _unwrapped(annotation)
    if get_origin(inner) in (Union, UnionType):
        for part in get_args(inner):
            yield from _inner_marks(part, seen)
    elif isinstance(inner, type) and issubclass(inner, BaseModel):
        if inner not in seen:
            for info in inner.model_fields.values():
                yield from (*metadata(info), *_marks(info.annotation))
                yield from _inner_marks(info.annotation, seen | {inner})
    elif get_origin(inner) is not Literal:
        for part in get_args(inner):
            yield from (*_marks(part), *_inner_marks(part, seen))


def _check_name(field: str, name: str, by_name: dict[str, str]) -> None:
    if name in by_name:
        raise InvalidColumn(
            f"cannot be a column: in lower case it is {name!r}, as field {by_name[name]!r} is; rename one"
        )
    if name in SYSTEM_COLUMNS:
        raise InvalidColumn(
            f"cannot be a column: every table of Postgres has a system column {name!r}; give the field another name "
            f"and Field(validation_alias={field!r})"
        )
    if not COLUMN_NAME.fullmatch(name):
        raise InvalidColumn(
            f"cannot be a column; expected {COLUMN_NAME.pattern}; give the field such a name and "
            f"Field(validation_alias={field!r})"
        )


def _source_names(field: str, info: FieldInfo) -> tuple[str, ...]:
    alias = info.validation_alias if info.validation_alias is not None else info.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [field if alias is None else alias]
    names: list[str] = []
    for choice in choices:
        path = choice.path if isinstance(choice, AliasPath) else [choice]
        if len(path) != 1 or not isinstance(path[0], str):
            raise InvalidColumn(
                f"has the alias {'.'.join(map(str, path))}, a path into another field, whose other content would be "
                "lost; expected a name: write Path(...) in Annotated, or declare the outer field as a nested model"
            )
        names.append(path[0])
    return tuple(dict.fromkeys(names))


def _sql_type(annotation: Any) -> str:
    """The column type of an annotation; raises InvalidColumn with the types to use instead."""
    annotation, marked = _unwrapped(annotation)
    if marked:
        return marked
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _one({_sql_type(part) for part in get_args(annotation) if part is not type(None)})
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
    sql_type = marked or _sql_type(inner)
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


def _limits(info: FieldInfo, name: str) -> list[Any]:
    return [limit for item in metadata(info) if (limit := getattr(item, name, None)) is not None]


def _check_digits(sql_type: str, info: FieldInfo) -> None:
    # Postgres rounds what has too many decimals, in silence, and refuses what has too many digits, for good
    match = re.fullmatch(r"numeric\((\d+),\s*(\d+)\)", sql_type)
    if match is None:
        return
    precision, scale = int(match[1]), int(match[2])
    digits, places = min(_limits(info, "max_digits"), default=None), min(_limits(info, "decimal_places"), default=None)
    if digits is None or places is None or places > scale or digits - places > precision - scale:
        raise InvalidColumn(
            f"is {sql_type} and allows max_digits {digits}, decimal_places {places}; "
            f"expected Field(max_digits={precision}, decimal_places={scale}) or less"
        )


def _key_length(model: type[BaseModel], column: Column) -> int:
    """The most characters of a key's text."""
    info = model.model_fields[column.field]
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return min(_limits(info, "max_length"), default=max(map(len, map(str, choices)), default=KEY_LENGTH_MAX + 1))


def key_length_faults(model: type[BaseModel], columns: Sequence[Column]) -> Iterator[str]:
    """What is wrong with a key of several texts, of which an index holds at most 2,704 bytes together."""
    length = sum(_key_length(model, column) for column in columns if column.value_type == "text")
    if len(columns) > 1 and length > 2 * KEY_LENGTH_MAX:
        yield f"the key's texts have up to {length} characters together, expected at most {2 * KEY_LENGTH_MAX}"


def key_fault(model: type[BaseModel], column: Column) -> str | None:
    """The fault of a key that cannot be compared with a record's key or indexed; None if there is none."""
    length = _key_length(model, column)
    if column.masked and column.masked.how != "hmac":
        return f'key {column.field!r} is Masked("{column.masked.how}"), which tells no entities apart; expected "hmac"'
    is_text = column.value_type == "text" and length <= KEY_LENGTH_MAX
    if column.required and not column.nullable and (is_text or column.value_type in {*INTEGER_MAX, "uuid"}):
        return None
    return (
        f"key {column.field!r} is {column.value_type}{'' if column.required else ', optional'}"
        f"{', nullable' if column.nullable else ''}; expected a required whole number, UUID, or text of at most "
        f"{KEY_LENGTH_MAX} characters (Identifier)"
    )
