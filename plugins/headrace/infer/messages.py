"""The fields of a Protobuf schema: those of its file's first message, which serializers register it for."""

from functools import cache
from typing import Any

from headrace.exceptions import DatasetError
from headrace.formats.base import Undecodable
from headrace.formats.protobuf_schema import compiled
from headrace.formats.registry import SchemaText
from headrace.infer.draft import FieldDraft

FIRST_MESSAGE = (0,)
# by the type of a field in a .proto file
_SCALARS = {
    "bool": "Boolean", "bytes": "bytes", "double": "Float", "enum": "Text", "float": "Float", "string": "str",
    "uint64": "Numeric", "fixed64": "Numeric",
}  # fmt: skip
_WHOLE = frozenset({"int32", "int64", "uint32", "sint32", "sint64", "fixed32", "sfixed32", "sfixed64"})
_MESSAGES = {
    "confluent.type.Decimal": "Numeric",
    **{
        f"google.protobuf.{name}": kind
        for name, kind in {
            "Timestamp": "Timestamp", "Duration": "Numeric", "Struct": "dict[str, Any]", "ListValue": "list[Any]",
            "Value": "Any", "DoubleValue": "Float", "FloatValue": "Float", "Int64Value": "Integer",
            "UInt64Value": "Numeric", "Int32Value": "Integer", "UInt32Value": "Integer", "BoolValue": "Boolean",
            "StringValue": "str", "BytesValue": "bytes",
        }.items()
    },
}  # fmt: skip


def message_fields(schema: SchemaText, subject: str) -> list[FieldDraft]:
    """The fields of the first message; none of a file without messages.

    A field may be absent if its message knows that it has no value. Raises DatasetError for a schema that protoc
    refuses.
    """
    try:
        descriptor = compiled(schema, f"subject {subject}").descriptor(FIRST_MESSAGE)
    except Undecodable as error:
        raise DatasetError(f"{error.detail}; expected the text of a .proto file with a message") from error
    return [_field(field) for field in descriptor.fields]


def _field(field: Any) -> FieldDraft:
    is_optional = field.has_presence and not field.is_required
    if field.is_repeated:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        return FieldDraft(field.name, "dict[str, Any]" if is_map else "list[Any]", is_optional)
    if field.message_type is not None:
        return FieldDraft(field.name, _MESSAGES.get(field.message_type.full_name, "dict[str, Any]"), is_optional)
    name = _names()[field.type]
    return FieldDraft(field.name, "Integer" if name in _WHOLE else _SCALARS[name], is_optional)


@cache
def _names() -> dict[int, str]:
    """The names of types as .proto files have them, by their numbers."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    return {
        number: name.removeprefix("TYPE_").lower()
        for name, number in FieldDescriptorProto.Type.items()
        if name != "TYPE_GROUP"
    }
