"""Every format as a second client writes it: orders, by three schemas that follow each other within a topic.

The oldest schema lacks fields, and its ids have 32 bits; the newest lacks two others and has one that is new.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import avro.schema
import fastavro
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField

from tests.support.order_schemas import NAMES, avro_schema, json_schema, json_value, plain_avro
from tests.support.orders import DECLARATION, Order, Orders
from tests.support.protobuf_orders import protobuf_writer

OLD = ("id", "amount", "at", "nanos", "note", "status")
NEW = (*(name for name in NAMES if name not in ("note", "status")), "later")
VERSIONS: tuple[tuple[str, ...], ...] = (OLD, NAMES, NEW)
DEFAULTS: dict[str, Any] = {"tags": [], "attributes": {}, "status": "NEW"}  # of the contract, where a schema has none

LATER = '    status: Identifier = "NEW"\n'
NEWER_CONTRACT = DECLARATION.replace(LATER, f"{LATER}    later: Identifier | None = None\n")
TEXTS = '''
"""Lines of text, numbered by their keys."""

from typing import Annotated

from pydantic import BaseModel

from headrace.contract import Integer, Key
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from headrace.formats import *


class Line(BaseModel):
    model_config = CONTRACT_CONFIG

    id: Annotated[Integer, Key()]
    value: str


DATASET = Dataset(name="orders", contract=Line, source=KafkaTopic(topic="TOPIC"), key="id", format=FORMAT)
'''

Write = Callable[[Order], bytes]
WriteKey = Callable[[int], bytes | None]


@dataclass(frozen=True, slots=True)
class FormatCase:
    """A format: how it is declared, and how values of each of VERSIONS and keys are written.

    subject: where the schemas of single objects are registered. has_keys: whether a record with a value has a key.
    records: of a long run.
    """

    name: str
    format: str
    key_format: str
    writers: Callable[[Orders], Sequence[Write]]
    key: Callable[[Orders], WriteKey]
    has_keys: bool = True
    records: int = 1_000_000

    @property
    def is_text(self) -> bool:
        """Whether a value has no fields."""
        return self.name == "text"

    @property
    def has_schemas(self) -> bool:
        """Whether values name schemas of the registry."""
        return self.name in ("avro", "avro_single_object", "json_schema", "protobuf")

    def declaration(self, *, is_newer: bool) -> str:
        """The text of a declaration whose contract names the newest schema's field, or does not yet."""
        return TEXTS if self.is_text else NEWER_CONTRACT if is_newer else DECLARATION

    def format_text(self, topic: str) -> str:
        """The expression of the format."""
        return self.format.replace("SUBJECT", f"{topic}-single")


def as_text(order: Order) -> str:
    """The line of an order."""
    return f"{order['amount']} {order['note'] or ''}\n{order['uid']}"


def _json_text(order: Order, names: Sequence[str]) -> str:
    return json.dumps({name: json_value(order[name]) for name in names})


def _json(_made: Orders) -> Sequence[Write]:
    return [lambda order, names=names: _json_text(order, names).encode() for names in VERSIONS]  # type: ignore[misc]


def _keyed_json(_made: Orders) -> Sequence[Write]:
    return [
        lambda order, names=names: f"{order['id']}|{_json_text(order, names)}".encode()  # type: ignore[misc]
        for names in VERSIONS
    ]


def _text(_made: Orders) -> Sequence[Write]:
    return [lambda order: as_text(order).encode()] * len(VERSIONS)


def _json_schema(made: Orders) -> Sequence[Write]:
    def writer(names: Sequence[str]) -> Write:
        serializer = JSONSerializer(json_schema(*names), made.registry, conf={"validate": False})  # it takes 0.2 ms
        return lambda order: bytes(serializer({name: json_value(order[name]) for name in names}, made.context()) or b"")

    return [writer(names) for names in VERSIONS]


def _avro(made: Orders) -> Sequence[Write]:
    def writer(names: Sequence[str]) -> Write:
        serializer = AvroSerializer(made.registry, avro_schema(*names, is_narrow=names is OLD))
        return lambda order: bytes(serializer(order, made.context()) or b"")

    return [writer(names) for names in VERSIONS]


def single_object_writer(schema: str) -> Write:
    """Write single objects by a schema; its fingerprint is from Apache's package, for no serializer writes them."""
    parsed = fastavro.parse_schema(json.loads(schema))
    header = b"\xc3\x01" + bytes(avro.schema.parse(plain_avro(schema)).fingerprint("CRC-64-AVRO"))

    def write(order: Order) -> bytes:
        data = io.BytesIO()
        data.write(header)
        fastavro.schemaless_writer(data, parsed, order)
        return data.getvalue()

    return write


def _single_object(made: Orders) -> Sequence[Write]:
    schemas = [avro_schema(*names, is_narrow=names is OLD) for names in VERSIONS]
    for schema in schemas:
        made.register(schema, "AVRO", f"{made.topic}-single")
    return [single_object_writer(schema) for schema in schemas]


def _protobuf(made: Orders) -> Sequence[Write]:
    return [protobuf_writer(made, *names, is_narrow=names is OLD) for names in VERSIONS]


def _text_key(_made: Orders) -> WriteKey:
    return lambda number: str(number).encode()


def _json_key(_made: Orders) -> WriteKey:
    return lambda number: json.dumps({"order": number}).encode()


def _avro_key(made: Orders) -> WriteKey:
    serializer = AvroSerializer(made.registry, '"long"')
    return lambda number: serializer(number, made.context(MessageField.KEY))


CASES: dict[str, FormatCase] = {
    case.name: case
    for case in (
        FormatCase("json", "Json()", "None", _json, _text_key),
        FormatCase("keyed_json", "KeyedJson()", "None", _keyed_json, _text_key, has_keys=False),
        FormatCase("text", "PlainText()", "None", _text, _text_key),
        FormatCase("json_schema", "JsonSchema()", "PlainText()", _json_schema, _text_key),
        FormatCase("avro", "Avro()", "Avro()", _avro, _avro_key),
        FormatCase("avro_single_object", 'Avro("single_object", subject="SUBJECT")', "None", _single_object, _text_key),
        FormatCase("protobuf", "Protobuf()", "Json()", _protobuf, _json_key, records=200_000),
    )
}
