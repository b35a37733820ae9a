"""The parameters of a DAG run: the form's fields, and the values that the form, the API and scripts send.

The form sends null for an empty field; scripts send 5.0 or "5" for 5, and "" for an empty field.
A value that converts without loss is accepted; any other fails the task in one line.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.exceptions import UsageError

BLANK = ""  # scripts send this for an empty field; the form sends null


def whole_number(*, minimum: int, maximum: int | None = None, optional: bool = False) -> dict[str, Any]:
    """The schema of a whole number, for Param(...): a number field in the form; text is accepted from scripts."""
    limits = {"minimum": minimum} | ({} if maximum is None else {"maximum": maximum})
    # without `examples` Airflow's form shows a choice of types instead of a number field
    return {"type": [*(["null"] if optional else []), "integer", "string"], "examples": [minimum], **limits}


def choice(names: Sequence[str], *, all_of_them: str | None = None) -> dict[str, Any]:
    """The schema of a choice between names, for Param(...). all_of_them: the label for no choice."""
    if all_of_them is None:
        return {"type": "string", "enum": list(names)} if names else {"type": ["null", "string"]}
    labels = {"None": all_of_them, BLANK: f"{all_of_them} (empty)"}
    return {"type": ["null", "string"], "enum": [None, BLANK, *names], "values_display": labels}


def read_text(params: Mapping[str, Any], name: str) -> str | None:
    """A text without the blanks around it; None for null and for a blank one. Whole numbers are read as text."""
    value = params[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return None if value is None else str(value).strip() or None
    raise UsageError(f"parameter {name}: found {value!r:.80}, expected a text")


def read_required_text(params: Mapping[str, Any], name: str) -> str:
    """A text without the blanks around it; a blank one is refused."""
    text = read_text(params, name)
    if text is None:
        raise UsageError(f"parameter {name}: found nothing, expected a value; fill it in and trigger the DAG again")
    return text


def read_whole_number(params: Mapping[str, Any], name: str, *, minimum: int, maximum: int | None = None) -> int | None:
    """A whole number; 5.0, "5" and "5.0" are 5, null and blank text are None."""
    value = params[name]
    text = value.strip() if isinstance(value, str) else value
    if text is None or text == "":
        return None
    wanted = f"a whole number from {minimum} on" if maximum is None else f"a whole number from {minimum} to {maximum}"
    number = _whole_number(text)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        raise UsageError(f"parameter {name}: found {value!r:.80}, expected {wanted}")
    return number


def read_names(params: Mapping[str, Any], name: str) -> list[str]:
    """A list of names; empty for null."""
    value = params[name]
    if not isinstance(value, list | None) or not all(isinstance(each, str) for each in value or ()):
        raise UsageError(f"parameter {name}: found {value!r:.80}, expected a list of names")
    return [each.strip() for each in value or () if each.strip()]


def read_flag(params: Mapping[str, Any], name: str) -> bool:
    """A flag; "true" and "True", as templates render it, are true."""
    value = params[name]
    text = str(value).strip().lower()
    if isinstance(value, bool | str) and text in ("true", "false"):
        return text == "true"
    raise UsageError(f"parameter {name}: found {value!r:.80}, expected true or false")


def read_number(params: Mapping[str, Any], name: str) -> float:
    """A number; "10" and "12.5", as templates render them, are numbers."""
    value = params[name]
    try:
        if not isinstance(value, bool) and isinstance(value, int | float | str):
            return float(value)
    except ValueError:
        pass
    raise UsageError(f"parameter {name}: found {value!r:.80}, expected a number")


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value.isascii() and len(value) <= 40:
        whole, _, fraction = value.partition(".")
        if whole.removeprefix("-").isdigit() and not fraction.strip("0"):
            return int(whole)
    return None
