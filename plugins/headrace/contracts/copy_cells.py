"""Cells of COPY text: text escaped, and JSON as the record wrote it."""

import re

import orjson

from headrace.contracts.strict_json import nests_too_deep

NULL = r"\N"  # in COPY text


def escaped(text: str) -> str:
    """Text as COPY reads it (Postgres, COPY, text format)."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text or "\r" in text or "\t" in text:
        text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return text


def cleaned(text: str) -> str:
    """Text as COPY reads it; raises NotPlain for what no text column holds."""
    if "\0" in text:
        raise NotPlain
    return escaped(text)


class NotPlain(ValueError):
    """JSON that only Contract.decode can judge; never raised outside contracts/."""


# an exponent that makes a number longer than any text; characters beyond what Contract.decode accepts
SMALL = 200  # bytes; below this a pattern is cheaper than a second parse, above it more expensive
NESTED_OR_ODD = re.compile(rb"[{\[\t\n\r]|[0-9][eE]").search
_SMALL_NUMBER = re.compile(rb"[0-9][eE]-[0-9]{3}").search
# matches only at a number's first digit: tried at each character, numbers of 3,999 digits cost 2 s a megabyte
_LONG_NUMBER = re.compile(rb"(?<![-+0-9.eE])[-+0-9.eE]{4000}").search
JSON_LENGTH_MAX = 4_000  # shorter JSON holds no number that is too long for the contract
JSON_BRACKETS_MAX = 100  # nothing can be nested deeper
_WHITE_SPACE = str.maketrans("\t\n\r", "   ")  # only between tokens: in a JSON text these are escaped


def json_cell(raw: bytes) -> str:
    """JSON as a cell of COPY text, with unchanged numbers.

    Raises ValueError for JSON that Contract.decode must judge: a repeated name in an object, a number out of bounds,
    deep nesting, or no JSON at all.
    """
    document = orjson.loads(raw)
    # Written again, an object has each name once: fewer quotes where one stood twice. An escaped quote is one again,
    # and \u0022, which would be, is not let through.
    if raw.count(b"{") > 0 and orjson.dumps(document).count(b'"') != raw.count(b'"'):
        raise NotPlain
    if raw.count(b"[") + raw.count(b"{") > JSON_BRACKETS_MAX and nests_too_deep(f"[{raw.decode()}]"):
        raise NotPlain
    if (b"e-" in raw or b"E-" in raw) and _SMALL_NUMBER(raw):
        raise NotPlain
    if len(raw) > JSON_LENGTH_MAX and _LONG_NUMBER(raw):
        raise NotPlain
    text = str(raw, "utf-8")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.translate(_WHITE_SPACE)
    return text.replace("\\", "\\\\") if "\\" in text else text
