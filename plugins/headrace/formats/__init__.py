"""Formats: how a record's bytes hold its document. May import the root only; contracts and sources import it.

A declaration names one: `Dataset(..., format=KeyedJson())`. Defaults to Json(). `formats.base` has the interface that
all of them keep, and tests/unit/test_formats.py the tests that all of them pass.
"""

from headrace.formats.avro import Avro as Avro
from headrace.formats.base import Format as Format
from headrace.formats.debezium import Debezium as Debezium
from headrace.formats.json_schema import JsonSchema as JsonSchema
from headrace.formats.json_text import Json as Json
from headrace.formats.json_text import KeyedJson as KeyedJson
from headrace.formats.plain_text import PlainText as PlainText
from headrace.formats.protobuf import Protobuf as Protobuf

JSON = Json()
