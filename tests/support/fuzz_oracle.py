"""Which payloads are valid, and what their rows hold, by plain Python: shares no code with the contract.

One function per dataset that is fuzzed; each takes a record's key and value and gives the row as a dict, or None for
a record that breaks the contract.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

BYTES_MAX = 1024 * 1024
DEPTH_MAX = 200
EXPONENT_MAX = 1000
NUMBER_LENGTH_MAX = 4300
EXTRA = "_extra"
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

FieldCheck = Callable[[Any], Any]  # a JSON value becomes a column's; raises ValueError for one that breaks the contract


def jobs(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of the dataset jobs."""
    return _row(JOBS, "JOBIDENTIFIER", key, value, separator="|")


def unseparated_jobs(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of jobs whose values have no key before the document."""
    return _row(JOBS, "JOBIDENTIFIER", key, value)


def lines(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of lines of text, numbered by their keys."""
    try:
        if key is None or (value is not None and (len(value) > BYTES_MAX or b"\0" in value)):
            return None
        text = None if value is None else value.decode()
        return {"id": BIGINT(key.decode()), "value": text, EXTRA: None}
    except (ValueError, ArithmeticError):
        return None


def readings(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    """A row of tests/support/fuzz_datasets/readings.py."""
    return _row(READINGS, "ID", key, value)


def exact_json(text: str | bytes) -> Any:
    """JSON whose numbers compare by their value, however they are written."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


class ExactNumber(str):
    """A number as it stands in the JSON."""


def _row(
    checks: dict[str, FieldCheck], key_field: str, key: bytes | None, value: bytes | None, separator: str | None = None
) -> dict[str, Any] | None:
    try:
        if value is None:
            if key is None:
                return None
            return dict.fromkeys([*checks, EXTRA]) | {key_field: checks[key_field](key.decode())}
        if len(value) > BYTES_MAX:
            return None
        text = value.decode()
        keys = [] if key is None else [key.decode()]
        if separator is not None and separator in text and not text.lstrip(" \t\r\n").startswith("{"):
            prefix, _, text = text.partition(separator)
            keys.append(prefix)
        document = _parse(text)
        row = {field: check(document.pop(field, MISSING)) for field, check in checks.items()}
        if not keys or any(checks[key_field](each) != row[key_field] for each in keys):
            return None
        row[EXTRA] = _plain(document) if document else None
        return row
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _parse(text: str) -> dict[str, Any]:
    document = json.loads(
        text, parse_float=_number, parse_int=_number, parse_constant=_refuse, object_pairs_hook=_object
    )
    if not isinstance(document, dict):
        raise ValueError("no object")
    for depth, part in _parts(document):
        if depth > DEPTH_MAX and isinstance(part, dict | list):
            raise ValueError("too deep")
        if isinstance(part, str) and UNSTORABLE.search(part):
            raise ValueError("not storable")
    return document


def _number(text: str) -> ExactNumber:
    exponent = text.lower().partition("e")[2].lstrip("+-0")
    if len(text) > NUMBER_LENGTH_MAX or len(exponent) > 4 or int(exponent or 0) > EXPONENT_MAX:
        raise ValueError("too long a number")
    return ExactNumber(text)


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
    if isinstance(part, ExactNumber):
        return Decimal(part)
    if isinstance(part, dict):
        return {name: _plain(item) for name, item in part.items()}
    return [_plain(item) for item in part] if isinstance(part, list) else part


MISSING = object()


def _given(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}")
    return value


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,4})?")


def _exact(value: Any) -> Decimal:
    """The value of a number, or of a text that is one."""
    if isinstance(value, ExactNumber):
        return Decimal(value)
    if not isinstance(value, str) or len(value) > NUMBER_LENGTH_MAX or not NUMBER.fullmatch(value):
        raise ValueError("no number")
    return Decimal(value)


def _identifier(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("empty")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):  # a number's text is its own
        raise ValueError("no text")
    text = str(value)
    if len(text) > 255 or "\0" in text:
        raise ValueError("too long, or holds U+0000")
    return text


def _one_of(*choices: str) -> FieldCheck:
    def check(value: Any) -> str:
        if _given(value, str) not in choices:
            raise ValueError("no choice")
        return str(value)

    return check


def _whole(low: int, high: int) -> FieldCheck:
    def check(value: Any) -> int:
        number = _exact(value)
        if number.adjusted() > 40 or number != int(number) or not low <= number <= high:
            raise ValueError("no whole number of the range")
        return int(number)

    return check


def _numeric(value: Any) -> Decimal:
    """Exact, not negative, below 1e30, with at most 60 decimals."""
    number = _exact(value)
    with localcontext(prec=NUMBER_LENGTH_MAX + 10):
        if number < 0 or number >= 10**30 or number % Decimal("1e-60"):
            raise ValueError("no number of the range")
    return number


def _money(value: Any) -> Decimal:
    number = _exact(value)
    if not 0 <= number < 10**13 or number != number.quantize(Decimal("0.01")):
        raise ValueError("no money")
    return number


def _float(value: Any) -> float:
    exact = _exact(value)
    number = float(exact)
    if abs(number) > 1e100 or (exact and not number):
        raise ValueError("no double")
    if isinstance(value, ExactNumber) and re.fullmatch(r"-?\d+", value) and int(number) != int(value):
        raise ValueError("a whole number that no double holds")
    return number


def _truth(value: Any) -> bool:
    if type(value) is str and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return bool(_given(value, bool))


def _time(zone: tzinfo) -> FieldCheck:
    # a date; then hours, minutes and seconds as far as they go, all with colons or all without; then a zone, by its
    # distance from UTC and perhaps its name as well
    date, digits, fraction = r"(\d{4})-(\d\d)-(\d\d)", r"(\d\d)", r"(?:[.,](\d+))?"
    short = r"(\d{4})(\d\d)(\d\d)(?=[Tt])"
    distance = r"[+-]\d\d(?:\d\d|:\d\d|:\d\d:\d\d)?"
    zone_pattern = rf"(?: ?([Zz]|{distance})(?:\[[A-Za-z0-9_/+-]{{1,40}}\]| [A-Z]{{3,5}})?| ?(UTC|GMT))?"
    patterns = [
        re.compile(f"{day}(?:[Tt ]{clock}{zone_pattern})?", re.ASCII)
        for day in (date, short)
        for clock in (
            f"{digits}(?::{digits}(?::{digits}{fraction})?)?",
            f"{digits}(?:{digits}(?:{digits}{fraction})?)?",
        )
    ]

    def check(value: Any) -> datetime:
        text = _given(value, str)
        found = next((match for pattern in patterns if (match := pattern.fullmatch(text))), None)
        if found is None:
            raise ValueError("no time")
        year, month, day, hour, minute, second = (int(found[i] or 0) for i in range(1, 7))
        at = datetime(year, month, day, hour, minute, second, int((found[7] or "")[:6].ljust(6, "0")))
        at = at.replace(tzinfo=UTC if found[9] else _zone(found[8]) if found[8] else zone)
        if not FIRST <= at <= LAST:
            raise ValueError("beyond what every zone can show")
        return at

    return check


# a day away from the first and the last that Python knows: no zone is further from UTC
FIRST = datetime(1, 1, 2, tzinfo=UTC)
LAST = datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)


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
    if type(value) is str and not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", value):
        raise ValueError("no number of milliseconds")
    number = _exact(value)
    if number != number.to_integral_value() or number < 10**11:
        raise ValueError("no milliseconds")
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(int(number), 10**15))
    if at > LAST:
        raise ValueError("beyond what every zone can show")
    return at


def _json(kind: type) -> FieldCheck:
    return lambda value: _plain(_given(value, kind))


def _or(default: Any, check: FieldCheck) -> FieldCheck:
    return lambda value: default if value is MISSING else check(value)


def _or_null(check: FieldCheck, *, empty: bool = False) -> FieldCheck:
    """Null or absent; empty: as text of nothing too."""
    return lambda value: None if value is MISSING or value is None or (empty and value == "") else check(value)


BIGINT = _whole(-(2**63), 2**63 - 1)
JOBS: dict[str, FieldCheck] = {
    "JOBCREATEDATE": _or_null(_time(UTC), empty=True),
    "JOBDATE": _or_null(_time(UTC), empty=True),
    "JOBIDENTIFIER": BIGINT,
    "JOBSTATUS": _one_of("SUCCESS", "NO SUCCESS"),
    "LOCATION": _text,
    "REVENUE": _or_null(_numeric, empty=True),
    "SERVICENAME": _text,
    "USERID": BIGINT,
}
READINGS: dict[str, FieldCheck] = {
    "ID": _identifier,
    "TAKEN": _epoch_ms,
    "WRITTEN": _or_null(_time(ZoneInfo("America/New_York")), empty=True),
    "VALUE": _float,
    "EXACT": _or_null(_money, empty=True),
    "COUNT": _whole(-(2**15), 2**15 - 1),
    "TOTAL": _or_null(BIGINT, empty=True),
    "GOOD": _truth,
    "KIND": _or("a", _one_of("a", "b")),
    "NOTE": _or_null(_text),
    "PAYLOAD": _or_null(_json(dict)),
    "LIST": _or_null(_json(list)),
}
