"""The format of sample values, and the documents that it makes of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.contracts import strict_json
from headrace.contracts.strict_json import Malformed
from headrace.exceptions import DatasetError
from headrace.formats import JSON, Avro, Debezium, Format, JsonSchema, KeyedJson, Protobuf
from headrace.formats.base import Decoder, Undecodable
from headrace.formats.debezium import INNER
from headrace.formats.registry import AVRO, JSON_SCHEMA, PROTOBUF, Registry
from headrace.formats.wire import schema_id
from headrace.record import Record
from headrace.settings import Settings

# by the type of a schema in the registry: the format, and its expression in a declaration
WIRE_FORMATS: Mapping[str, tuple[Callable[[], Format], str]] = {
    AVRO: (Avro, "Avro()"),
    JSON_SCHEMA: (JsonSchema, "JsonSchema()"),
    PROTOBUF: (Protobuf, "Protobuf()"),
}
_DELIMITER = re.compile(r"[;\t|]")
SEPARATORS = "|:,;"
_KEYED = re.compile(rb"\s*[^\s{\[|:,;][^{|:,;]{0,250}([|:,;])\s*\{")


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a sample in its order; None for a tombstone and for a value that is no document.

    format: connected; text: its expression in a declaration, None for Json().
    """

    found: Sequence[Mapping[str, Any] | None]
    format: Format
    text: str | None


def read_documents(where: str, records: Sequence[Record], settings: Settings) -> Documents:
    """The documents of a sample's values. Raises DatasetError for values of no format that Headrace reads.

    where: what the errors name, such as a topic.
    """
    values = [record.value for record in records if record.value is not None]
    format, text = _format(values, settings)
    if format.name in INNER and _are_changes(values, Debezium(format)):
        format, text = Debezium(format), f"Debezium({text or ''})"
    decoder = format.decoder()
    documents = [_document(decoder, record) for record in records]
    if values and not any(document is not None for document in documents):
        shown = values[0][:40]
        raise DatasetError(
            f"{where}: found values such as {shown!r}, expected JSON objects, key|{{JSON}}, or a schema's id and "
            "Avro, JSON or Protobuf; write the declaration by hand: docs/formats.md"
        )
    return Documents(documents, format, text)


def check_delimiter(where: str, documents: Documents) -> None:
    """Raise DatasetError for a .csv whose only column has another delimiter in its name, as spreadsheets write it."""
    names = {name for document in documents.found for name in document or ()}
    if len(names) == 1 and (delimiter := _DELIMITER.search(name := names.pop())):
        raise DatasetError(
            f"{where}: found one column, {name!r}, expected columns separated by commas and not by {delimiter[0]!r}; "
            "write the file again with commas"
        )


def _format(values: Sequence[bytes], settings: Settings) -> tuple[Format, str | None]:
    """The format that most values have."""
    ids = [found for value in values if (found := schema_id(value)) is not None]
    if ids and len(ids) * 2 > len(values):
        registry = Registry(settings)
        make, text = WIRE_FORMATS[_kind(registry, ids)]
        return make().connected(settings), text
    keyed = [matched[1] for value in values if (matched := _KEYED.match(value))]
    if keyed:  # a value that begins with a brace is read too
        separator = max(set(keyed), key=keyed.count).decode()
        return KeyedJson(separator), "KeyedJson()" if separator == "|" else f'KeyedJson(separator="{separator}")'
    return JSON, None


def _are_changes(values: Sequence[bytes], format: Debezium) -> bool:
    """Whether most values are Debezium's change events, or have the schema part of Connect's JSON converter."""
    decoder = format.decoder()
    changes = [decoder.change(value, ()) for value in values]
    found = sum(
        (change is not None and change.op is not None) or value.startswith(b'{"schema":{')
        for value, change in zip(values, changes, strict=True)
    )
    return found * 2 > len(values)


def _kind(registry: Registry, ids: Sequence[int]) -> str:
    """The type of the first schema that the registry knows; raises DatasetError where it knows none of them."""
    for number in dict.fromkeys(ids):
        try:
            return registry.schema(number).kind
        except Undecodable:
            continue
    raise DatasetError(
        f"found values with the schema id {ids[0]}, expected one that the registry knows; correct HEADRACE_REGISTRY_URL"
    )


def _document(decoder: Decoder, record: Record) -> Mapping[str, Any] | None:
    if record.value is None:
        return None
    try:
        document, _, _, change = decoder.decode(record.value, record.headers)
        if change is not None and change.is_deletion:
            return None  # of the row before it has the key alone
        if decoder.json_text is not None or (change is not None and isinstance(document, str)):
            return strict_json.parse(document)
    except (Undecodable, Malformed):
        return None
    return document if isinstance(document, Mapping) else None
