"""Nested models whose fields are columns of their own: `address: Annotated[Address, Flatten()]`.

The model validates the whole object, with its validators, aliases and defaults; only its columns differ from those of
a nested model that is stored as jsonb.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Protocol, Union, get_args, get_origin

from pydantic import BaseModel

from headrace.contracts.places import Names, Path, Place


@dataclass(frozen=True, slots=True)
class Flatten:
    """The fields of a nested model are columns, named <field>_<inner field>, or with another prefix.

    They are null where the object is absent. Fields that the model does not name are kept in `_extra`, inside an object
    of the field's name. A model inside may be flattened, too.
    """

    prefix: str | None = None


class FlattenedColumn(Protocol):
    """What leftovers need of a column."""

    @property
    def field(self) -> str:
        """The contract's field."""

    @property
    def inner(self) -> Names:
        """The names of the fields inside, from the outside in; none for a field that is not flattened."""

    @property
    def document_names(self) -> Names:
        """The contract's field's names in documents."""

    @property
    def place(self) -> Place | None:
        """Where it is, if not under a name of its document."""


class Leftovers:
    """What flattened models of a contract do not name."""

    def __init__(self, columns: Sequence[FlattenedColumn]) -> None:
        # of a record's key, _key holds all
        flattened = [column for column in columns if column.inner and isinstance(column.place, Path | None)]
        outer = {
            column.field: column.place.names if isinstance(column.place, Path) else column.document_names[:1]
            for column in flattened
        }
        inside = {(column.field, *column.inner[:length]) for column in flattened for length in range(len(column.inner))}
        self._objects = [(names, outer[names[0]]) for names in sorted(inside)]

    def added(self, model: BaseModel, extra: Mapping[str, Any] | None) -> dict[str, Any]:
        """The fields that a record's model does not name, with those that flattened models inside it do not."""
        found = dict(extra or {})
        for names, place in self._objects:
            value: Any = model
            for name in names:
                value = None if value is None else getattr(value, name)
            if value is not None and value.__pydantic_extra__:
                _merge(found, (*place, *names[1:]), value.__pydantic_extra__)
        return found


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The one model that an annotation names, also as `X | None`; None for another annotation."""
    if get_origin(annotation) in (Union, UnionType):
        present = [part for part in get_args(annotation) if part is not type(None)]
        return model_of(present[0]) if len(present) == 1 else None
    if hasattr(annotation, "__metadata__"):  # Annotated
        return model_of(get_args(annotation)[0])
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def owner(model: type[BaseModel], column: FlattenedColumn) -> tuple[type[BaseModel], str]:
    """The model that declares a column's field, and the field's name there."""
    name = column.field
    for inner in column.inner:
        found = model_of(model.model_fields[name].annotation)
        assert found is not None
        model, name = found, inner
    return model, name


def _merge(found: dict[str, Any], names: Sequence[str], added: Mapping[str, Any]) -> None:
    for name in names:
        held = found.get(name)
        found[name] = dict(held) if isinstance(held, Mapping) else {}
        found = found[name]
    found.update(added)
