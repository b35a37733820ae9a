"""Which fields can be a key: compared with a record's key, and indexed."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from headrace.contracts.column_types import INTEGER_MAX
from headrace.contracts.columns import KEY_LENGTH_MAX, Column, limits


def _key_length(model: type[BaseModel], column: Column) -> int:
    """The most characters of a key's text."""
    info = model.model_fields[column.field]
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return min(limits(info, "max_length"), default=max(map(len, map(str, choices)), default=KEY_LENGTH_MAX + 1))


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
