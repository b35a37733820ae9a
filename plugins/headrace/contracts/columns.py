"""From a contract's fields to the columns of its staging table; refuses contracts without valid columns.

A type whose values Postgres would round, refuse or be unable to index is refused here, when the dataset is
declared: a record must never fail in COPY.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo

from headrace.contracts import places
from headrace.contracts.annotations import (
    InvalidColumn,
    SqlType,
    inner_marks,
    is_nullable,
    marks_of_field,
    metadata,
    sql_type_of,
)
from headrace.contracts.flattened import Flatten, model_of
from headrace.contracts.masks import Masked
from headrace.contracts.places import Header, Key, Path, Place, words_of

NUL = "\0"  # before the names that fields get of their places
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
# every table has these already (Postgres, 5.6 System Columns)
SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
KEY_LENGTH_MAX = 255  # keys are indexed: at most 1,020 bytes, and a btree entry of two of them has to stay below 2,704
Mark = TypeVar("Mark")


@dataclass(frozen=True, slots=True)
class Column:
    """One contract column of a staging table.

    name: the field's name in lower case, as in Postgres. field: its name in the model. required: whether a record must
    have it. nullable: whether its value may be null. source_names: what records call it, the field's name or its
    aliases; the first that a record has counts. masked: how its values are masked. value_type: Postgres's type of the
    values themselves; sql_type is the column's, which is text for masks. place: where a record has it, if not under
    a name of its document. inner: for a field of a flattened model, the names of the fields inside `field`.
    document_names: what documents call `field`, also where it is flattened.
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
    inner: tuple[str, ...] = ()
    document_names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The field as messages name it: address.city."""
        return ".".join((self.field, *self.inner))

    @property
    def path(self) -> tuple[str, ...]:
        """Where the value is, as the JSON path of a rejection has it."""
        outer = words_of(self.place) if self.place is not None else self.document_names[:1]
        return (*outer, *self.inner)

    @property
    def is_masked(self) -> bool:
        """Whether its values are stored masked."""
        return self.masked is not None


def columns_of(model: type[BaseModel]) -> tuple[list[Column], list[str]]:
    """A contract's columns in the order of its fields, and the faults of fields that cannot be a column."""
    found = _Found()
    _add_columns(model, found)
    columns, faults = found.columns, found.faults
    by_source: dict[str, str] = {}
    for column in columns:
        for source_name in column.source_names:
            other = by_source.setdefault(source_name, column.title)
            if other != column.title:
                name = source_name.removeprefix(NUL)
                faults.append(f"field {column.title!r} reads {name!r}, as field {other!r} does; expected two names")
    return columns, [*faults, *places.faults(columns)]


@dataclass(slots=True)
class _Found:
    columns: list[Column] = dataclass_field(default_factory=list)
    faults: list[str] = dataclass_field(default_factory=list)
    by_name: dict[str, str] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Outer:
    """A flattened field: its column, if it were one, the prefix of its columns, and the models around it."""

    column: Column
    prefix: str
    models: tuple[type[BaseModel], ...]


def _add_columns(model: type[BaseModel], found: _Found, outer: _Outer | None = None) -> None:
    for field, info in model.model_fields.items():
        title = field if outer is None else f"{outer.column.title}.{field}"
        name = (field if outer is None else outer.prefix + field).lower()
        marks = marks_of_field(info)
        try:
            if (flatten := _mark(marks, Flatten)) is not None:
                column = _column(name, field, info, marks, "jsonb", outer)
                if column.masked or isinstance(column.place, Header):
                    raise InvalidColumn("is flattened, expected an object that is not masked and in no header")
                models = (*(outer.models if outer else ()), model)
                prefix = f"{name}_" if flatten.prefix is None else flatten.prefix
                _add_columns(_inner_model(info, models), found, _Outer(column, prefix, models))
                continue
            _check_name(title, name, found.by_name)
            # of the field's own Annotated alone: that of a list's items is the type of the items
            marked = next((item.name for item in info.metadata if isinstance(item, SqlType)), None)
            sql_type = marked or sql_type_of(info.annotation)
            _check_digits(sql_type, info)
            found.columns.append(_column(name, field, info, marks, sql_type, outer))
        except InvalidColumn as fault:
            found.faults.append(f"field {title!r} {fault}")
        found.by_name.setdefault(name, title)


def _mark(marks: Iterable[Any], kind: type[Mark]) -> Mark | None:
    """The first item of a kind that a field's Annotated has."""
    return next((item for item in marks if isinstance(item, kind)), None)


def _inner_model(info: FieldInfo, models: tuple[type[BaseModel], ...]) -> type[BaseModel]:
    model = model_of(info.annotation)
    if model is None:
        raise InvalidColumn("is flattened, expected one model")
    if model in models:
        raise InvalidColumn(f"is flattened and is inside a {model.__name__} itself; leave Flatten() out: jsonb")
    return model


def _column(
    name: str, field: str, info: FieldInfo, marks: Iterable[Any], value_type: str, outer: _Outer | None
) -> Column:
    masked = _masked(info, marks, value_type)
    place = _mark(marks, Path) or _mark(marks, Header) or _mark(marks, Key)
    if place is not None and (info.validation_alias is not None or info.alias is not None):
        raise InvalidColumn(f"has an alias and {type(place).__name__}, expected one of the two")
    names = _source_names(field, info) if place is None else ()
    if outer is None:
        return Column(
            name,
            field,
            "text" if masked and masked.how != "drop" else value_type,
            info.is_required(),
            is_nullable(info.annotation),
            names if place is None else (place.alias,),
            masked,
            value_type,
            place,
            document_names=names,
        )
    if place is not None or masked is not None:
        mark = "Masked" if place is None else type(place).__name__
        raise InvalidColumn(f"has {mark} inside a flattened model, expected none: give the contract a field of its own")
    around = outer.column
    return replace(
        around,
        name=name,
        sql_type=value_type,
        value_type=value_type,
        required=around.required and not around.nullable and info.is_required(),
        nullable=around.nullable or is_nullable(info.annotation),
        source_names=(f"{around.place.alias if around.place else NUL + '$.' + around.field}.{field}",)
        if not around.inner
        else (f"{around.source_names[0]}.{field}",),
        inner=(*around.inner, field),
    )


def _masked(info: FieldInfo, marks: Iterable[Any], value_type: str) -> Masked | None:
    """How a field is masked; raises InvalidColumn where its masks could not hide it."""
    found = {item for item in marks if isinstance(item, Masked)}
    if any(isinstance(item, Masked) for item in inner_marks(info.annotation)):
        raise InvalidColumn("has a Masked inside it, which would hide nothing; mask the field itself")
    if len(found) > 1:
        raise InvalidColumn(f"is masked in {len(found)} ways, expected one")
    masked = found.pop() if found else None
    if masked and (fault := masked.fault(value_type)):
        raise InvalidColumn(fault)
    return masked


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


def limits(info: FieldInfo, name: str) -> list[Any]:
    """The values of a limit in a field's metadata."""
    return _limits(metadata(info), name)


def _limits(marks: Iterable[Any], name: str) -> list[Any]:
    return [limit for item in marks if (limit := getattr(item, name, None)) is not None]


def _check_digits(sql_type: str, info: FieldInfo) -> None:
    # Postgres rounds what has too many decimals, in silence, and refuses what has too many digits, for good
    match = re.fullmatch(r"numeric\((\d+),\s*(\d+)\)(?:\[\])?", sql_type)
    if match is None:
        return
    precision, scale = int(match[1]), int(match[2])
    marks = [*metadata(info), *inner_marks(info.annotation)]
    digits, places = (min(_limits(marks, name), default=None) for name in ("max_digits", "decimal_places"))
    if digits is None or places is None or places > scale or digits - places > precision - scale:
        raise InvalidColumn(
            f"is {sql_type} and allows max_digits {digits}, decimal_places {places}; "
            f"expected Field(max_digits={precision}, decimal_places={scale}) or less"
        )
