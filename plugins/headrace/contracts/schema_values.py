"""Values that a schema gave a type of its own, where JSON would have a text."""

from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from headrace.contracts.numbers import wrong
from headrace.formats.values import Nanoseconds


def text_of_schema_value(value: Any) -> str:
    """The text of a time, a UUID, a decimal or of bytes in UTF-8; raises PydanticCustomError for another value."""
    if isinstance(value, Nanoseconds | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, bytes):  # as Avro reads bytes where a text is expected
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise wrong("text")
