"""What Kafka Connect's JSON converter writes, in parts that are read only where they are needed.

A part without a schema stays JSON text, which the contract parses exactly. With the converter's schema part its values
are what their schema says.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from math import isinf
from typing import Any, Protocol

import msgspec

from headrace.formats.base import Fault, Undecodable
from headrace.formats.connect_schema import ConnectSchema, Convert

KEPT_SCHEMAS = 1_000  # a topic has a few; one that has a new one in each record is not to fill the memory

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode


def _number(text: str) -> Decimal | float:
    """A number as it is written; of a double's range, so that its exponent is never worked out."""
    found = float(text)
    if isinf(found):
        raise ValueError(f"number {text[:40]} is out of range")
    return Decimal(text) if found else found


_decode_exact = msgspec.json.Decoder(float_hook=_number).decode  # decimal.format=NUMERIC writes decimals as numbers


def _value(text: bytes | str | msgspec.Raw, decode: Callable[[Any], Any] = _decode) -> Any:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Undecodable(Fault.INVALID_JSON, str(error)) from error


class Payload(Protocol):
    """A value of Connect's: names with parts, each a document or a value."""

    def names(self) -> Iterable[str]:
        """The names of its fields; none where it is no struct."""

    def value(self, name: str) -> Any:
        """A field's value as JSON has it; None where it is absent."""

    def document(self, name: str) -> Any:
        """A field's document: a mapping, JSON text without a schema; None where it is absent or null."""

    def whole(self) -> Any:
        """All of it, likewise; None for null."""

    def value_of_all(self) -> Any:
        """All of it, as values: what a key is."""

    def replaced(self, document: Any, without: Iterable[str], added: Mapping[str, Any]) -> Any:
        """A document with other members."""


class JsonPayloads:
    """Makes payloads; a schema part that comes again is not read again."""

    def __init__(self) -> None:
        self._schemas: dict[bytes, ConnectSchema] = {}

    def of_text(self, text: str) -> Payload:
        """The payload of a value's text; raises Undecodable where it is no JSON."""
        if not text.strip():
            return TextPayload(text, {})  # the contract says what is wrong with it
        try:
            members = _members(text)
        except msgspec.ValidationError:  # JSON, and no object
            return TextPayload(text, {})
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Undecodable(Fault.INVALID_JSON, str(error)) from error
        if members.keys() != {"schema", "payload"}:
            return TextPayload(text, members)
        text = str(bytes(members["payload"]), "utf-8")
        schema = self._schema(bytes(members["schema"]))
        if schema is None:
            return TextPayload(text, _members(text) if text[:1] == "{" else {})
        return SchemaPayload(text, schema)

    def of_values(self, document: Any) -> Payload:
        """The payload of what a schema of a registry made."""
        return ValuePayload(document)

    def _schema(self, text: bytes) -> ConnectSchema | None:
        if text == b"null":
            return None
        found = self._schemas.get(text)
        if found is None:
            node = _value(text)
            if not isinstance(node, dict):
                raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"the schema part is {text[:60]!r}, expected an object")
            if len(self._schemas) >= KEPT_SCHEMAS:
                self._schemas.clear()
            found = self._schemas[text] = ConnectSchema(node)
        return found


class TextPayload:
    """JSON without a schema."""

    def __init__(self, text: str, members: Mapping[str, msgspec.Raw]) -> None:
        self._text = text
        self._members = members

    def names(self) -> Iterable[str]:
        """The names of the object."""
        return self._members

    def value(self, name: str) -> Any:
        """A member, parsed."""
        raw = self._members.get(name)
        return None if raw is None else _value(raw)

    def document(self, name: str) -> Any:
        """A member's text; that of a text which is JSON itself, as MongoDB's connector writes documents."""
        raw = self._members.get(name)
        if raw is None:
            return None
        text = str(bytes(raw), "utf-8")
        return None if text == "null" else _value(text) if text[:1] == '"' else text

    def whole(self) -> Any:
        """The text."""
        return None if self._text == "null" else self._text

    def value_of_all(self) -> Any:
        """The text, parsed."""
        return _value(self._text)

    def replaced(self, document: Any, without: Iterable[str], added: Mapping[str, Any]) -> Any:
        """The text of the document with other members, whose own texts stay as they are."""
        try:
            members: dict[str, Any] = dict(_members(document))
        except (msgspec.DecodeError, RecursionError):
            return document  # the contract says what is wrong with it
        for name in without:
            members.pop(name, None)
        return str(msgspec.json.encode({**members, **added}), "utf-8")


class ValuePayload:
    """What a schema made."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._members: Mapping[str, Any] = document if isinstance(document, Mapping) else {}

    def names(self) -> Iterable[str]:
        """The names of the record."""
        return self._members

    def value(self, name: str) -> Any:
        """A field."""
        return self._members.get(name)

    def document(self, name: str) -> Any:
        """A field."""
        return self._members.get(name)

    def whole(self) -> Any:
        """The record."""
        return self._document

    def value_of_all(self) -> Any:
        """The record."""
        return self.whole()

    def replaced(self, document: Any, without: Iterable[str], added: Mapping[str, Any]) -> Any:
        """A copy with other members."""
        if not isinstance(document, Mapping):
            return document
        left = set(without)
        return {**{name: value for name, value in document.items() if name not in left}, **added}


class SchemaPayload(ValuePayload):
    """JSON with a schema part; the members of an event are converted where they are asked for."""

    def __init__(self, text: str, schema: ConnectSchema) -> None:
        super().__init__(_value(text, _decode_exact))
        self._schema = schema

    def document(self, name: str) -> Any:
        """A field by its schema."""
        schema = self._schema.field(name)
        value = self._members.get(name)
        return value if schema is None else _converted(schema, value)

    def whole(self) -> Any:
        """All of it by its schema."""
        return _converted(self._schema, self._document)


def _converted(schema: ConnectSchema, value: Any) -> Any:
    convert: Convert = schema.converter
    try:
        return convert(value)
    except Undecodable:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        shown = " ".join(str(error).split())[:300] or type(error).__name__
        raise Undecodable(Fault.UNDECODABLE, f"by the schema part: {shown}") from error
