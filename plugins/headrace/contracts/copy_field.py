"""How the fast path reads and writes one field: its type for msgspec, and the statements that make its cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec

from headrace.contracts.copy_cells import NULL

# (offset, the record's time as text, key, value, headers as text) to the columns of `staging.columns`, with tabs
# between them and a newline behind them
LineMaker = Callable[[int, str, bytes | None, bytes | None, str], str | None]
Binder = Callable[[int, int, UUID], LineMaker]  # generation, partition, batch_id: the same in a whole batch


class UnsupportedField(Exception):
    """A contract that the fast path does not support; never raised outside contracts/."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastField:
    """How the fast path reads and writes a field: generated statements, in which {v} is the field's variable.

    kind: msgspec's type. quotes: the minimum number of quotes in the value's JSON. parse: statements that set {v} to
    the value if msgspec does not, and count further quotes. steps: statements that turn {v} into COPY text. Both may
    refuse the record by an exception. names: the objects that the statements use, with the field's number appended.
    suffix: written after {v}. empty_is_null: an empty text counts as null if the field is nullable.
    """

    kind: Any
    quotes: int = 0
    parse: str = ""
    steps: str = ""
    suffix: str = ""
    names: Mapping[str, Any]
    is_nullable: bool = False
    has_default: bool = False
    empty_is_null: bool = False

    @property
    def is_raw(self) -> bool:
        """Whether msgspec returns the field's raw JSON."""
        return self.kind is msgspec.Raw

    @property
    def definition(self) -> tuple[Any, ...]:
        """Type, and default if any, as msgspec.defstruct takes them."""
        kind = self.kind
        if self.is_nullable and not self.is_raw:
            kind = kind | None
        if self.is_nullable and self.empty_is_null and not self.is_raw and not _takes_text(self.kind):
            kind = kind | Literal[""]
        return (kind, msgspec.UNSET) if self.has_default else (kind,)

    def source(self, i: int) -> str:
        """Statements that leave the text of field i in v<i> and count its quotes."""
        read, steps = f"v{i} = fields.v{i}\n", (self.parse + self.steps).format(v=f"v{i}", i=i)
        if not self.is_nullable and not self.has_default:
            return read + steps
        branches = []
        if self.has_default:
            branches.append(f"if v{i} is UNSET:\n    v{i} = default{i}\n")
        if self.is_nullable:
            null = f"bytes(v{i}) == b'null'" if self.is_raw else f"v{i} is None"
            branches.append(f"if {null}:\n    quotes += 2\n    v{i} = {NULL!r}\n")
            if self.empty_is_null:
                empty = f"bytes(v{i}) == b'\"\"'" if self.is_raw else f"v{i} == ''"
                branches.append(f"if {empty}:\n    quotes += 4\n    v{i} = {NULL!r}\n")
        steps += f"quotes += {2 + self.quotes}\n"
        # the suffix here, for null and a default have none
        if self.suffix:
            steps += f"v{i} = f'{{v{i}}}{self.suffix}'\n"
        branches.append(f"if True:\n{indent(steps, '    ')}")
        return read + "el".join(branches).replace("elif True:", "else:")


def _takes_text(kind: Any) -> bool:
    kinds = get_args(kind) if get_origin(kind) is not Annotated else (kind,)
    return str in (kind, *kinds) or any(get_args(part)[:1] == (str,) for part in (kind, *kinds))


def only(schema: Mapping[str, Any], *names: str) -> None:
    """Raise UnsupportedField for a core schema with other validating entries than these."""
    if not set(schema) <= {"type", "metadata", "ref", "serialization", *names}:
        raise UnsupportedField


def limited(kind: type, schema: Mapping[str, Any], *names: str) -> Any:
    """A type for msgspec, with the limits of these names that the core schema has."""
    limits = {name: schema[name] for name in names if schema.get(name) is not None}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind
