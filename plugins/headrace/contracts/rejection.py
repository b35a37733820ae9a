"""Why a record is a dead letter: the reason, a sentence and the place in the JSON."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time

from pydantic_core import ErrorDetails

from headrace.contracts.reasons import Reason, reason_of
from headrace.contracts.strict_json import Number

DETAIL_MAX = 500  # characters of a dead letter's detail

NOT_KEPT = "not kept"  # marks the detail of a dead letter without its record's bytes; nothing else does


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a record is a dead letter: a reason of one word, a sentence and the place in the JSON.

    is_raised: a validator raised an unexpected exception, so the validator may be at fault. schema_id: the
    registry's id of the schema that the record names.
    """

    reason: str
    detail: str
    json_path: str = "$"
    is_raised: bool = False
    schema_id: int | None = None


def of_errors(errors: Sequence[ErrorDetails]) -> Rejection:
    """The rejection for pydantic's errors: the first gives reason and place, five are described."""
    first = errors[0]
    detail = "; ".join(_describe(error) for error in errors[:5])
    return Rejection(reason_of(first["type"]), storable(detail), json_path(first["loc"]))


def of_exception(error: BaseException) -> Rejection:
    """The rejection for an exception that a contract's own code raised and pydantic does not know."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # the exception's own __str__ failed
        text = type(error).__name__
    return Rejection(Reason.BUSINESS_RULE, storable(" ".join(text.split())), is_raised=True)


def _describe(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "record"
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: found {shown(error['input'])}, {message}"


def shown(value: object) -> str:
    """A value for a message, at most 80 characters; a number as the record wrote it."""
    if isinstance(value, Number):
        return value.text[:80]
    if isinstance(value, str | bytes):
        return repr(value[:80])[:80]
    if isinstance(value, date | time):
        return value.isoformat()
    try:
        return repr(value)[:80]
    except Exception:  # an object of a validator's own
        return type(value).__name__


def json_path(location: tuple[str | int, ...]) -> str:
    """A location in a document as a JSON path, for example $.a[0].b."""
    path = "$"
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"\w+", part):
            path += f".{part}"
        else:
            path += f"[{part!r}]"
    return storable(path)


def storable(text: str) -> str:
    """Make text storable: no U+0000, no lone surrogate, at most DETAIL_MAX characters."""
    return text[:DETAIL_MAX].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
