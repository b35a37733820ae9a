"""From a contract's fields to the columns of its staging table, and the contracts that cannot have one.

What Postgres would round, refuse or not index for good is refused here, when the dataset is declared: a record
must never fail in COPY.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from headrace.exceptions import DatasetError

COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
INT64_MAX = 2**63 - 1
KEY_LENGTH_MAX = 255  # keys are indexed: at most 1,020 bytes, and a btree entry of two of them has to stay below 2,704
SQL_TYPES = {
    str: "text",
    int: "bigint",
    float: "double precision",
    bool: "boolean",
    datetime: "timestamptz",
    dict: "jsonb",
    list: "jsonb",
}
INTEGER_MAX = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": INT64_MAX}


@dataclass(frozen=True, slots=True)
class SqlType:
    """The Postgres type of a field's column, for types that Python's own does not decide."""

    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """One contract column of a staging table: the field's name in records and in lower case in Postgres."""

    name: str
    field: str
    sql_type: str
    required: bool

    @property
    def is_numeric(self) -> bool:
        """Whether JSON writes its values as numbers: for sources that hold nothing but text."""
        return self.sql_type.startswith(("numeric", "bigint", "integer", "smallint", "double", "real"))


def columns_of(model: type[BaseModel]) -> Iterator[Column]:
    """Yield a contract's columns in the order of its fields; raises DatasetError for what no column can hold."""
    if model.model_config.get("extra") != "allow" or not model.model_config.get("strict"):
        raise DatasetError(f"{model.__name__}: expected model_config = CONTRACT_CONFIG, so that no field is dropped")
    seen: set[str] = set()
    for field, info in model.model_fields.items():
        name = field.lower()
        if not COLUMN_NAME.fullmatch(name) or name in seen:
            raise DatasetError(f"{model.__name__}: field {field!r} cannot be a column; expected {COLUMN_NAME.pattern}")
        seen.add(name)
        marked = next((m.name for m in info.metadata if isinstance(m, SqlType)), None)
        sql_type = marked or _sql_type(model, field, info.annotation)
        _check_digits(model, field, sql_type, info)
        yield Column(name, field, sql_type, info.is_required())


def _sql_type(model: type[BaseModel], field: str, annotation: Any) -> str:
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            marked = next((m.name for m in get_args(annotation)[1:] if isinstance(m, SqlType)), None)
            if marked:
                return str(marked)
            annotation = get_args(annotation)[0]
        elif origin in (Union, UnionType):
            annotation = _only(model, field, {part for part in get_args(annotation) if part is not type(None)})
        elif origin is Literal:
            annotation = _only(model, field, {type(value) for value in get_args(annotation) if value is not None})
        elif origin in (dict, list):
            annotation = origin
        else:
            break
    if annotation not in SQL_TYPES:
        raise DatasetError(f"{model.__name__}: field {field!r} is {annotation}, expected one of {list(SQL_TYPES)}")
    return SQL_TYPES[annotation]


def _only(model: type[BaseModel], field: str, kinds: set[Any]) -> Any:
    if len(kinds) != 1:
        found = ", ".join(sorted(str(getattr(kind, "__name__", kind)) for kind in kinds))
        raise DatasetError(f"{model.__name__}: field {field!r} may be {found}, expected one type: a column has one")
    return kinds.pop()


def metadata(info: FieldInfo) -> Iterator[Any]:
    """What a field's Annotated says, also inside `X | None`."""
    yield from info.metadata
    for part in get_args(info.annotation):
        if get_origin(part) is Annotated:
            for item in get_args(part)[1:]:
                yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def _limits(info: FieldInfo, name: str) -> list[Any]:
    return [limit for item in metadata(info) if (limit := getattr(item, name, None)) is not None]


def is_bounded(info: FieldInfo, sql_type: str) -> bool:
    """Whether a whole number's own limits keep it within its column."""
    limit = INTEGER_MAX[sql_type]
    lower = [*_limits(info, "ge"), *_limits(info, "gt")]
    upper = [*_limits(info, "le"), *_limits(info, "lt")]
    return bool(lower and upper) and max(lower) >= -limit - 1 and min(upper) <= limit


def _check_digits(model: type[BaseModel], field: str, sql_type: str, info: FieldInfo) -> None:
    # Postgres rounds what has too many decimals, in silence, and refuses what has too many digits, for good
    match = re.fullmatch(r"numeric\((\d+),\s*(\d+)\)", sql_type)
    if match is None:
        return
    precision, scale = int(match[1]), int(match[2])
    digits, places = min(_limits(info, "max_digits"), default=None), min(_limits(info, "decimal_places"), default=None)
    if digits is None or places is None or places > scale or digits - places > precision - scale:
        raise DatasetError(
            f"{model.__name__}: field {field!r} is {sql_type} and allows max_digits {digits}, decimal_places {places}; "
            f"expected Field(max_digits={precision}, decimal_places={scale}) or less"
        )


def check_key(model: type[BaseModel], column: Column) -> None:
    """Refuse a key that cannot be compared with a record's, or that an index may not hold."""
    info = model.model_fields[column.field]
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    length = min(_limits(info, "max_length"), default=max(map(len, map(str, choices)), default=KEY_LENGTH_MAX + 1))
    is_text = column.sql_type == "text" and length <= KEY_LENGTH_MAX
    if not column.required or not (is_text or column.sql_type in INTEGER_MAX):
        raise DatasetError(
            f"{model.__name__}: key {column.field!r} is {column.sql_type}{'' if column.required else ', optional'}; "
            f"expected a required whole number, or text of at most {KEY_LENGTH_MAX} characters (Identifier)"
        )
