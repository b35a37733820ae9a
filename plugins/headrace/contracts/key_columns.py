"""Which fields can be a key: compared with a record's key, and indexed."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from headrace.contracts.column_types import INTEGER_MAX
from headrace.contracts.columns import KEY_LENGTH_MAX, Column, limits


def key_faults(model: type[BaseModel], columns: Sequence[Column], names: Sequence[str]) -> Iterator[str]:
    """What is wrong with the fields that are to be the key."""
    of_key = [column for column in columns if column.field in names]
    flattened = {column.field for column in of_key if column.inner}
    yield from (f"key {name!r} is not a field of the contract" for name in names if name not in model.model_fields)
    yield from (f"key {name!r} is flattened, expected a field of its own: Path(...)" for name in sorted(flattened))
    plain = [column for column in of_key if not column.inner]
    yield from filter(None, (_key_fault(model, column) for column in plain))
    yield from _key_length_faults(model, plain)


def _key_length(model: type[BaseModel], column: Column) -> int:
    """The most characters of a key's text."""
    info = model.model_fields[column.field]
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return min(limits(info, "max_length"), default=max(map(len, map(str, choices)), default=KEY_LENGTH_MAX + 1))


def _key_length_faults(model: type[BaseModel], columns: Sequence[Column]) -> Iterator[str]:
    """What is wrong with a key of several texts, of which an index holds at most 2,704 bytes together."""
    length = sum(_key_length(model, column) for column in columns if column.value_type == "text")
    if len(columns) > 1 and length > 2 * KEY_LENGTH_MAX:
        yield f"the key's texts have up to {length} characters together, expected at most {2 * KEY_LENGTH_MAX}"


def _key_fault(model: type[BaseModel], column: Column) -> str | None:
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
