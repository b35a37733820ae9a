"""Masks: what is stored in place of a field's value that must not be stored as it is.

A declaration writes `email: Annotated[Text, Masked("hmac")]`. A mask depends on the value and the key alone, so a
retry, a replay and a reload store the same, and equal values of two datasets have equal masks.
"""

import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from typing import Any, Literal, get_args
from uuid import UUID

from pydantic_core import PydanticCustomError

from headrace.contracts.reasons import Reason
from headrace.exceptions import DatasetError, SettingError

How = Literal["hmac", "drop", "last4"]
HIDDEN = "***"  # in a dead letter, for a value that is dropped; in its detail, for every masked value
NOT_VALID = "*** (not valid)"  # in a dead letter, for a value that the contract rejects
KEY_LENGTH_MIN = 16  # characters
SHOWN = 4  # characters that last4 shows, of values of at least twice as many

_SCALARS = ("text", "bigint", "integer", "smallint", "numeric", "boolean", "timestamptz", "date", "time", "uuid")
_MASKABLE: Mapping[str, tuple[str, ...]] = {
    "hmac": (*_SCALARS, "bytea"),
    "last4": ("text", "bigint", "integer", "smallint"),
}
_EXACT = Context(prec=200_000)  # Postgres's numeric ends at 131,072 digits: nothing is rounded
_FORMS = {
    "hmac": re.compile(r"[0-9a-f]{64}"),
    "last4": re.compile(r"\*{4}.{0,4}", re.DOTALL),
    "drop": re.compile(re.escape(HIDDEN)),
}


@dataclass(frozen=True, slots=True)
class Masked:
    """A field's value is stored masked, in its column and in dead letters.

    hmac: HMAC-SHA256 of the value's text under HEADRACE_MASKING_KEY, as 64 hexadecimal digits: equal values have equal
    masks. last4: four stars and the last four characters, if the value has at least eight. drop: null.

    Raises DatasetError for another word.
    """

    how: How

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise DatasetError(f"Masked({self.how!r}): expected one of {', '.join(map(repr, get_args(How)))}")

    def fault(self, value_type: str) -> str | None:
        """Why values of a Postgres type cannot be masked so; None if they can."""
        allowed = _MASKABLE.get(self.how)
        if allowed is None or value_type.partition("(")[0] in allowed:
            return None
        return f'is {value_type} and Masked("{self.how}"), expected one of {", ".join(allowed)}; use Masked("drop")'


class MaskedText(str):
    """A value that was masked before; never leaves contracts/."""

    __slots__ = ()


Mask = Callable[[Any], str | None]  # from what a column would hold to what it holds instead; never called with None


def mask_of(field: str, masked: Masked, key: bytes | None) -> Mask:
    """The function that masks a field's values.

    The one of hmac raises SettingError without a key: nothing is ever stored unmasked.
    """
    if masked.how == "drop":
        return lambda _value: None
    if masked.how == "last4":
        return _last4

    def keyed(value: Any) -> str:
        if key is None:
            raise no_key([field])
        text = value if isinstance(value, bytes) else _text(value).encode()
        return hmac.digest(key, text, "sha256").hex()

    return keyed


def no_key(fields: list[str]) -> SettingError:
    """The error for masks without their key."""
    return SettingError(
        f"HEADRACE_MASKING_KEY: not set, expected the key by which {', '.join(fields)} is masked; set it, or "
        "HEADRACE_MASKING_KEY_FILE; nothing was changed"
    )


def key_of(setting: str | None) -> bytes | None:
    """The key that a setting gives; raises SettingError for one that is too short."""
    if setting is not None and len(setting) < KEY_LENGTH_MIN:
        raise SettingError(
            f"HEADRACE_MASKING_KEY: found {len(setting)} characters, expected at least {KEY_LENGTH_MIN}: a short key "
            "is found by trying all; nothing was changed"
        )
    return None if setting is None else setting.encode()


def key_id(key: bytes) -> str:
    """What tells one key from another without telling the key."""
    return hmac.digest(key, b"headrace: the id of this key", "sha256").hex()[:16]


def masked_before(masked: Masked) -> Callable[[Any], Any]:
    """A validator that accepts what a mask made, and nothing else: for dead letters that are decoded again."""
    form = _FORMS[masked.how]

    def check(value: Any) -> MaskedText:
        if not isinstance(value, str) or not form.fullmatch(value):
            raise PydanticCustomError(
                Reason.WRONG_TYPE, "the value was not valid and is not kept: only a reload can judge it again"
            )
        return MaskedText(value)

    return check


def _last4(value: Any) -> str:
    text = _text(value)
    return "****" + (text[-SHOWN:] if len(text) >= 2 * SHOWN else "")


def _text(value: Any) -> str:
    """The one text of a value, however its record wrote it."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Decimal):
        return f"{_EXACT.normalize(value):f}" if value else "0"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no text to mask")


def forms(value: Any) -> Iterator[str]:
    """How a value may stand in the message of a validator."""
    if value is None or isinstance(value, bool):
        return
    text = getattr(value, "text", None) or str(value)
    yield from (text, repr(text)[1:-1], ascii(text)[1:-1])
