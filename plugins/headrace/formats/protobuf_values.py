"""From a Protobuf message to a document: names as the .proto file has them, exact values of Python's types.

A field without a value is left out where the message knows that it has none (optional, a message, one of a oneof); a
field of proto3 that always has a value is there with its default. https://protobuf.dev/programming-guides/field_presence/
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from headrace.formats.base import Fault, Undecodable
from headrace.formats.values import Nanoseconds

Convert = Callable[[Any], Any]
_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")


class Converters:
    """Functions that make documents of messages, one for each message type."""

    def __init__(self) -> None:
        self._made: dict[str, Convert] = {}

    def of(self, descriptor: Any) -> Convert:
        """The function of a message type; a type that holds itself finds its own."""
        name = descriptor.full_name
        if name not in self._made:
            special = _special(name)
            if special is not None:
                self._made[name] = _known(name, special)
            else:
                self._made[name] = lambda message: self._made[name](message)  # until it is made, for types that recur
                self._made[name] = self._message(descriptor)
        return lambda message: self._made[name](message)

    def _message(self, descriptor: Any) -> Convert:
        always: list[tuple[str, Convert | None]] = []
        if_set: list[tuple[str, Convert | None]] = []
        for field in descriptor.fields:
            (if_set if field.has_presence else always).append((field.name, self._field(field)))
        full_name, refuse_unknown = descriptor.full_name, _refuse_unknown()

        def convert(message: Any) -> dict[str, Any]:
            refuse_unknown(message, full_name)
            document = {}
            for name, of in always:
                value = getattr(message, name)
                document[name] = value if of is None else of(value)
            for name, of in if_set:
                if message.HasField(name):
                    value = getattr(message, name)
                    document[name] = value if of is None else of(value)
            return document

        return convert

    def _field(self, field: Any) -> Convert | None:
        """How a field's value is converted; None where it stays as it is."""
        of_item = self._item(field)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            of_value = self._item(entry.fields_by_name["value"])
            return lambda values: {
                _key(key): value if of_value is None else of_value(value) for key, value in values.items()
            }
        if field.is_repeated:
            return list if of_item is None else lambda values: list(map(of_item, values))
        return of_item

    def _item(self, field: Any) -> Convert | None:
        if field.message_type is not None:
            return None if field.message_type.GetOptions().map_entry else self.of(field.message_type)
        if field.enum_type is not None:
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)
        return None


def _key(key: Any) -> str:
    """The key of a map as JSON has it."""
    return {True: "true", False: "false"}[key] if isinstance(key, bool) else str(key)


def _refuse_unknown() -> Callable[[Any, str], None]:
    """A function that raises Undecodable for a message with a field that its type does not have."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    def refuse(message: Any, name: str) -> None:
        for unknown in UnknownFieldSet(message):
            raise Undecodable(Fault.UNDECODABLE, f"field {unknown.field_number} is not in message {name}")

    return refuse


def _known(name: str, convert: Convert) -> Convert:
    """The conversion of a well-known type, for a message without other fields: a damaged tag would lose its value."""
    refuse_unknown = _refuse_unknown()

    def checked(message: Any) -> Any:
        refuse_unknown(message, name)
        return convert(message)

    return checked


def _special(name: str) -> Convert | None:
    """How a well-known type is converted."""
    if name == "confluent.type.Decimal":
        return _decimal
    package, _, short = name.rpartition(".")
    if package != "google.protobuf":
        return None
    if short.removesuffix("Value") in _WRAPPERS and short.endswith("Value"):
        return lambda message: message.value
    special: dict[str, Convert] = {
        "Timestamp": _timestamp, "Duration": _duration, "Struct": _struct, "Value": _value, "ListValue": _list,
    }  # fmt: skip
    return special.get(short)


def _decimal(message: Any) -> Decimal:
    if abs(message.scale) > 10_000:
        raise Undecodable(Fault.OUT_OF_RANGE, f"a decimal of scale {message.scale}")
    return Decimal(f"{int.from_bytes(message.value, 'big', signed=True)}e{-message.scale}")


def _timestamp(message: Any) -> Nanoseconds:
    if not 0 <= message.nanos < 1_000_000_000:
        raise Undecodable(Fault.OUT_OF_RANGE, f"a Timestamp of {message.nanos} nanoseconds")
    return Nanoseconds(message.seconds * 1_000_000_000 + message.nanos)


def _duration(message: Any) -> Decimal:
    return Decimal(message.seconds * 1_000_000_000 + message.nanos).scaleb(-9)


def _struct(message: Any) -> dict[str, Any]:
    return {name: _value(value) for name, value in message.fields.items()}


def _list(message: Any) -> list[Any]:
    return [_value(value) for value in message.values]


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    found = getattr(message, kind)
    return {"struct_value": _struct, "list_value": _list}.get(kind, lambda value: value)(found)
