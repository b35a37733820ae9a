"""Which records of a topic belong to a dataset: `Dataset(where="$.type = 'order'")`, where several share a topic."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from headrace.contracts.contract import Contract
from headrace.contracts.places import Names, Path, at, is_absent
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.exceptions import DatasetError
from headrace.formats.base import Undecodable
from headrace.record import Headers

_CONDITION = re.compile(
    r"(?P<operand>\$(?:\.\w+|\['[^']+'\])+|header\.[\w.-]+|schema\b)\s*(?P<operator>!=|=|\bin\b)\s*(?P<values>\S.*)",
    re.DOTALL,
)
_VALUE = re.compile(r"'((?:[^']|'')*)'|(true|false|null)|(-?\d{1,18})(?![\d.eE])")
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None}

Value = tuple[type, Any]  # 1 is not true


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on one value of a document, on one header, or on the name of the value's schema.

    names: where the value is in the document; header: the name of the header instead. An absent value counts as null.
    """

    names: Names
    header: str | None
    is_of_schema: bool
    is_negated: bool
    values: frozenset[Value]

    def holds(self, value: Any) -> bool:
        """Whether a value belongs to the dataset."""
        value = None if is_absent(value) else value
        return ((type(value), value) in self.values if value.__hash__ is not None else False) != self.is_negated

    def holds_for_headers(self, headers: Headers) -> bool:
        """Whether the last header of the name does."""
        found = next((value for name, value in reversed(headers) if name == self.header), None)
        return self.holds(None if found is None else found.decode(errors="backslashreplace"))

    def holds_for_document(self, document: Any) -> bool:
        """Whether the value of a document does."""
        return self.holds(at(document, self.names))


class Where:
    """A condition on the records of a contract; raises DatasetError for text that is none."""

    def __init__(self, text: str, contract: Contract) -> None:
        self._condition = parse(text)
        self._contract = contract

    def ignores(self, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Whether a record does not belong to the dataset.

        A value that cannot be decoded may belong to it: it becomes a dead letter. A tombstone has no document: it
        belongs to the dataset if it has no key, or one of the contract's.
        """
        if self._condition.header is not None:
            return not self._condition.holds_for_headers(headers)
        if value is None:
            found = self._contract.decode(key, None, headers)
            return isinstance(found, Rejection) and found.reason != Reason.MISSING_KEY
        if self._condition.is_of_schema:
            return self._ignores_schema(value, headers)
        if len(value) > self._contract.max_value_bytes:
            return False
        try:
            document = self._contract.decoder.decode(value, headers).document
            document = orjson.loads(document) if isinstance(document, str) else document
        except (Undecodable, ValueError):
            return False
        return isinstance(document, Mapping) and not self._condition.holds_for_document(document)

    def _ignores_schema(self, value: bytes, headers: Headers) -> bool:
        try:
            return not self._condition.holds(self._contract.decoder.schema_name(value, headers))
        except Undecodable:
            return False


def parse(text: str, *, has_schemas: bool = True) -> Condition:
    """Read a condition; raises DatasetError for another text, or for a schema's name of a format without schemas."""
    found = _CONDITION.fullmatch(text.strip())
    values = _values(found["values"], is_list=found["operator"] == "in") if found else None
    if found is None or not values:
        raise DatasetError(
            f"where is {text!r}, expected $.path, header.name or schema, then = or != and a value, or in and values in "
            "brackets; a value is a text in single quotes, a whole number, true, false or null"
        )
    operand = found["operand"]
    header = operand.removeprefix("header.") if operand.startswith("header.") else None
    is_of_schema = operand == "schema"
    if is_of_schema and not has_schemas:
        raise DatasetError(f"where is {text!r}, expected a format with schemas: values of this one name none")
    names = () if header is not None or is_of_schema else Path(operand).names
    return Condition(names, header, is_of_schema, found["operator"] == "!=", frozenset(values))


def _values(text: str, *, is_list: bool) -> list[Value] | None:
    text = text.strip()
    if is_list:
        if not (text.startswith("(") and text.endswith(")")):
            return None
        text = text[1:-1].strip()
    values: list[Value] = []
    at_end = 0
    while True:
        found = _VALUE.match(text, at_end)
        if found is None:
            return None
        value: Any = found[1].replace("''", "'") if found[1] is not None else _WORDS.get(found[2], found[3])
        if found[3] is not None:
            value = int(found[3])
        values.append((type(value), value))
        rest = text[found.end() :].lstrip()
        if not rest:
            return values
        if not is_list or not rest.startswith(","):
            return None
        at_end = len(text) - len(rest[1:].lstrip())
