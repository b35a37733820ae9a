"""Numbers without loss: the exact value of what JSON wrote, and the bounds that every reader of a column can show."""

import re
from decimal import Context, Decimal
from typing import Any

from pydantic_core import PydanticCustomError

from headrace.contracts.reasons import Reason
from headrace.contracts.strict_json import NUMBER_LENGTH_MAX, Number

# Default bounds of numbers: sums, averages and variances in marts do not overflow, and psql, Python and Airflow can
# read all of them. Two readings of 1.7e308 stopped a mart.
FLOAT_MAX = 1e100
NUMERIC_DIGITS_MAX = 30  # before the point
NUMERIC_PLACES_MAX = 60  # after it: the shortest text of a double of 1e-40 has 57

_MANY_DIGITS = Context(prec=NUMBER_LENGTH_MAX + 10)

# JSON's numbers as text, also with the leading zeros of CSV files and Redis entries
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?").fullmatch


def wrong(expected: str) -> PydanticCustomError:
    """The error for a value of another type."""
    return PydanticCustomError(Reason.WRONG_TYPE, "expected {expected}", {"expected": expected})


def beyond(expected: str) -> PydanticCustomError:
    """The error for a value out of bounds."""
    return PydanticCustomError(Reason.OUT_OF_RANGE, "expected {expected}", {"expected": expected})


def exact(value: Any) -> Decimal | None:
    """The exact value of a JSON number or of its text; None for anything else."""
    if isinstance(value, Number):
        return value.exact()
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str) and len(value) <= NUMBER_LENGTH_MAX and _NUMBER(value):
        return Decimal(value)
    return None


def bounded(number: Decimal) -> Decimal:
    """A decimal that Postgres, psql and Python can all show; raises PydanticCustomError for another."""
    if not number.is_finite() or (number and number.adjusted() >= NUMERIC_DIGITS_MAX):
        raise beyond(f"a number below 1e{NUMERIC_DIGITS_MAX}")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -NUMERIC_PLACES_MAX:
        shorter = number.normalize(_MANY_DIGITS)  # 1.50000... is no more than 1.5
        if shorter.as_tuple().exponent < -NUMERIC_PLACES_MAX:  # type: ignore[operator]
            raise beyond(f"a number of at most {NUMERIC_PLACES_MAX} decimals")
        return shorter
    return number
