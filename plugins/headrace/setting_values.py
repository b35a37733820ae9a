"""Values of settings: the text of an environment variable as a number, a path, a list, a choice or a secret.

Each function raises SettingError, naming the variable, for a text that is no such value.
"""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from headrace import masking
from headrace.exceptions import SettingError
from headrace.private_files import read_bounded

PREFIX = "HEADRACE_"
Count = Annotated[int, "may be 0"]  # all other integers must be above 0
ADDRESSES = ("postgres_dsn", "dbt_dsn", "redis_url")  # may hold a password
KPIS = ("temperature", "humidity", "pressure", "vibration")  # of telemetry; HEADRACE_TELEMETRY_KPIS adds others
NAME_LENGTH_MAX = 255
SECRET_BYTES_MAX = 64 * 1024  # size limit of a file that a _FILE variable names


def parse_value(variable: str, text: str, kind: Any) -> Any:
    """A value of the type of the setting's field."""
    if kind is Decimal:
        return parse_number(variable, text)
    if get_origin(kind) is tuple:
        return parse_names(variable, text)
    if "Path" in str(kind):
        return Path(text).expanduser().absolute()
    choices = _choices(kind)
    if choices and text not in choices:
        raise SettingError(f"{variable}: found {text!r}, expected {' or '.join(choices)}")
    if "int" in str(kind):
        minimum = 0 if kind is Count else 1
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            wanted = "0 or a whole number above it" if kind is Count else "a whole number above 0"
            raise SettingError(f"{variable}: found {text!r}, expected {wanted}")
        return number
    return text


def parse_names(variable: str, text: str) -> tuple[str, ...]:
    """The names of a comma-separated list, stripped and without repeats."""
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    for name in names:
        if not name.isprintable() or len(name) > NAME_LENGTH_MAX:
            raise SettingError(
                f"{variable}: found {name[:60]!r}, expected names of at most {NAME_LENGTH_MAX} printable characters, "
                "separated by commas"
            )
    return tuple(dict.fromkeys(names))


def threshold_variables(kpis: tuple[str, ...]) -> dict[str, str]:
    """The threshold variables, each with its KPI, as dbt/macros/telemetry.sql names them."""
    named = {f"{PREFIX}THRESHOLD_{kpi.upper()}": kpi for kpi in KPIS}
    for kpi in kpis:
        variable = f"{PREFIX}THRESHOLD_{re.sub('[^A-Z0-9]', '_', kpi.upper())}"
        other = named.setdefault(variable, kpi)
        if other != kpi:
            raise SettingError(
                f"HEADRACE_TELEMETRY_KPIS: found {kpi!r} and {other!r}, whose thresholds both have the variable "
                f"{variable}; expected names that differ in more than case and punctuation"
            )
    return named


def _choices(kind: Any) -> tuple[str, ...]:
    """The values of a Literal or of an optional Literal; empty for other types."""
    kinds = (kind, *get_args(kind)) if get_origin(kind) is not Literal else (kind,)
    return tuple(word for each in kinds if get_origin(each) is Literal for word in get_args(each))


def read_secret(variable: str, name: str) -> str:
    """The secret in a file: UTF-8, with or without a byte order mark, without line breaks at its ends."""
    # a value that is not like a path may be the secret itself, set in the wrong variable: never show it
    is_path = name.startswith(("/", "~/", "./", "../"))
    shown = name if is_path else "the file that it names"
    try:
        text = read_bounded(Path(name).expanduser(), SECRET_BYTES_MAX).decode("utf-8-sig").strip("\r\n")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingError(f"{variable}: {shown} cannot be read: {reason}; name a file that this user may read") from (
            error if is_path else None
        )
    if not text:
        raise SettingError(f"{variable}: {shown} is empty, expected the secret")
    return text


def is_the_same_address(name: str, given: str, secret: str) -> bool:
    """Whether a given address equals the one from a file, with or without its secrets."""
    if name not in ADDRESSES or given.strip() == secret.strip():
        return given.strip() == secret.strip()
    from headrace.service_urls import without_secret

    is_the_same = without_secret(name, given.strip()) == without_secret(name, secret.strip())
    return is_the_same and not masking.holds_secret(given)


def parse_number(variable: str, text: str) -> Decimal:
    """A finite number."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise SettingError(f"{variable}: found {text!r}, expected a number")
    return number
