"""Which payloads are valid, and what their rows hold, by plain Python: shares no code with the contract.

One function per dataset that is fuzzed; each takes a record's key and value and gives the row as a dict, or None for
a record that breaks the contract.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

BYTES_MAX = 1024 * 1024
DEPTH_MAX = 200
EXPONENT_MAX = 1000
NUMBER_LENGTH_MAX = 4300
EXTRA = "_extra"

Check = Callable[[Any], Any]  # a JSON value becomes a column's; raises ValueError for one that breaks the contract


def jobs(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of the dataset jobs."""
    return _row(JOBS, "JOBIDENTIFIER", key, value)


def readings(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of tests/fuzz_datasets/readings.py."""
    return _row(READINGS, "ID", key, value)


def exact_json(text: str | bytes) -> Any:
    """JSON whose numbers compare by their value, however they are written."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


class Number(str):
    """A number as it stands in the JSON."""


def _row(checks: dict[str, Check], key_field: str, key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    try:
        if value is None:
            identifier = _identifier(key.decode() if key is not None else None)
            return dict.fromkeys([*checks, EXTRA]) | {key_field: identifier}
        document = _parse(value)
        row = {field: check(document.pop(field, MISSING)) for field, check in checks.items()}
        if key is None or key.decode() != row[key_field]:
            return None
        row[EXTRA] = _plain(document) if document else None
        return row
    except (ValueError, RecursionError):
        return None


def _parse(value: bytes) -> dict[str, Any]:
    if len(value) > BYTES_MAX:
        raise ValueError("too long")
    document = json.loads(
        value.decode(), parse_float=_number, parse_int=_number, parse_constant=_refuse, object_pairs_hook=_object
    )
    if not isinstance(document, dict):
        raise ValueError("no object")
    for depth, part in _parts(document):
        if depth > DEPTH_MAX:
            raise ValueError("too deep")
        if isinstance(part, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in part):
            raise ValueError("not storable")
    return document


def _number(text: str) -> Number:
    exponent = text.lower().partition("e")[2]
    if len(text) > NUMBER_LENGTH_MAX or (exponent and abs(int(exponent)) > EXPONENT_MAX):
        raise ValueError("not sane")
    return Number(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise ValueError(text)


def _parts(document: Any) -> Iterator[tuple[int, Any]]:
    waiting = [(0, document)]
    while waiting:
        depth, part = waiting.pop()
        yield depth, part
        if isinstance(part, dict):
            for name, item in part.items():
                yield depth, name
                waiting.append((depth + 1, item))
        elif isinstance(part, list):
            waiting.extend((depth + 1, item) for item in part)


def _plain(part: Any) -> Any:
    if isinstance(part, Number):
        return Decimal(part)
    if isinstance(part, dict):
        return {name: _plain(item) for name, item in part.items()}
    return [_plain(item) for item in part] if isinstance(part, list) else part


MISSING = object()


def _given(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}")
    return value


def _identifier(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("empty")
    return text


def _text(value: Any) -> str:
    text: str = _given(value, str)
    if len(text) > 255 or "\0" in text:
        raise ValueError("too long, or holds U+0000")
    return text


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if _given(value, str) not in choices:
            raise ValueError("no choice")
        return str(value)

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        number = _given(value, Number)
        if not re.fullmatch(r"-?\d+", number) or not low <= int(number) <= high:
            raise ValueError("no whole number of the range")
        return int(number)

    return check


def _money(value: Any) -> Decimal:
    number = Decimal(_given(value, Number))
    if not 0 <= number < 10**13 or number != number.quantize(Decimal("0.01")):
        raise ValueError("no money")
    return number


def _float(value: Any) -> float:
    number = float(_given(value, Number))
    if math.isinf(number):
        raise ValueError("no double")
    return number


def _time(zone: tzinfo) -> Check:
    # a date; then hours, minutes and seconds as far as they go, all with colons or all without; then a zone
    date, digits, fraction = r"(\d{4})-(\d\d)-(\d\d)", r"(\d\d)", r"(?:[.,](\d+))?"
    zone_pattern = r" ?([Zz]|[+-]\d\d(?:\d\d|:\d\d|:\d\d:\d\d)?)?"
    patterns = [
        re.compile(f"{date}(?:[Tt ]{clock}{zone_pattern})?", re.ASCII)
        for clock in (
            f"{digits}(?::{digits}(?::{digits}{fraction})?)?",
            f"{digits}(?:{digits}(?:{digits}{fraction})?)?",
        )
    ]

    def check(value: Any) -> datetime:
        text = _given(value, str)
        found = patterns[0].fullmatch(text) or patterns[1].fullmatch(text)
        if found is None:
            raise ValueError("no time")
        year, month, day, hour, minute, second = (int(found[i] or 0) for i in range(1, 7))
        at = datetime(year, month, day, hour, minute, second, int((found[7] or "")[:6].ljust(6, "0")))
        if found[8] is None:
            return at.replace(tzinfo=zone)
        return at.replace(tzinfo=_zone(found[8]))

    return check


def _zone(text: str) -> tzinfo:
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = (int(digits[at : at + 2]) for at in (0, 2, 4))
    if minutes > 59 or seconds > 59:
        raise ValueError("no zone")
    away = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-away if text[0] == "-" else away)


def _epoch_ms(value: Any) -> datetime:
    milliseconds = _whole(10**11, 253_402_300_799_999)(value)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def _json(kind: type) -> Check:
    return lambda value: _plain(_given(value, kind))


def _or(default: Any, check: Check) -> Check:
    return lambda value: default if value is MISSING else check(value)


def _or_null(check: Check) -> Check:
    return lambda value: None if value is MISSING or value is None else check(value)


BIGINT = _whole(-(2**63), 2**63 - 1)
JOBS: dict[str, Check] = {
    "JOBCREATEDATE": _time(UTC),
    "JOBDATE": _time(UTC),
    "JOBIDENTIFIER": _identifier,
    "JOBSTATUS": _one_of("SUCCESS", "NO SUCCESS"),
    "LOCATION": _text,
    "REVENUE": _money,
    "SERVICENAME": _text,
    "USERID": BIGINT,
}
READINGS: dict[str, Check] = {
    "ID": _identifier,
    "TAKEN": _epoch_ms,
    "WRITTEN": _or_null(_time(ZoneInfo("America/New_York"))),
    "VALUE": _float,
    "EXACT": _or_null(_money),
    "COUNT": _whole(-(2**15), 2**15 - 1),
    "TOTAL": _or_null(BIGINT),
    "GOOD": lambda value: _given(value, bool),
    "KIND": _or("a", _one_of("a", "b")),
    "NOTE": _or_null(_text),
    "PAYLOAD": _or_null(_json(dict)),
    "LIST": _or_null(_json(list)),
}
