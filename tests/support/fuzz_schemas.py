"""Values of formats with schemas, whole and broken, and what another reader makes of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from tests.support import document_oracle
from tests.support.document_oracle import Document, Read, Undecided, order_row
from tests.support.format_writers import OLD, VERSIONS, single_object_writer
from tests.support.fuzz_mutations import MUTATIONS
from tests.support.fuzz_payloads import Payload
from tests.support.order_schemas import avro_schema
from tests.support.orders import Order, each_order
from tests.support.protobuf_orders import compiled_module, proto, set_field

SINGLE_OBJECT_HEADER, CONFLUENT_HEADER = 10, 5
# another message of the same file, whose fields have other names for the same numbers
REFUND = """
message Refund {
  int64 id = 1;
  confluent.type.Decimal amount = 2;
  google.protobuf.Timestamp at = 3;
  optional string later = 13;
}
"""


@dataclass(frozen=True, slots=True)
class Written:
    """A format's schemas as registries have them, how orders are written by them, and how another reader reads them.

    schemas: their texts by VERSIONS. write: what stands behind the header. prefixes: what Protobuf has between both.
    """

    schemas: Sequence[str]
    write: Sequence[Callable[[Order], bytes]]
    read: Sequence[Read]
    prefixes: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers that values begin with: of the schemas by VERSIONS, of another kind of schema, of none."""

    known: Sequence[bytes]
    foreign: bytes
    unknown: bytes

    def is_known(self, header: bytes) -> bool:
        """Whether values may begin with a header. Raises Undecided for an id that another test's schema may have."""
        is_small = header[:1] == b"\0" and len(header) == CONFLUENT_HEADER and header[1:3] == b"\0\0"
        if is_small and header not in (*self.known, self.foreign):
            raise Undecided
        return header in self.known


@cache
def avro() -> Written:
    """Avro; the header is cut off Apache's single objects."""
    schemas = [avro_schema(*names, is_narrow=names is OLD) for names in VERSIONS]
    writers = [single_object_writer(schema) for schema in schemas]
    return Written(
        schemas,
        [lambda order, write=write: write(order)[SINGLE_OBJECT_HEADER:] for write in writers],  # type: ignore[misc]
        [document_oracle.avro_reader(schema) for schema in schemas],
    )


def single_object_headers() -> list[bytes]:
    """The headers of single objects by the schemas of `avro`."""
    (order,) = each_order(1, 1)
    order["later"] = ""
    return [single_object_writer(schema)(order)[:SINGLE_OBJECT_HEADER] for schema in avro().schemas]


@cache
def protobuf() -> Written:
    """Protobuf: each file has two messages, of which the second is another one."""
    schemas, writers, readers = [], [], []
    for number, names in enumerate(VERSIONS):
        schemas.append(proto(*names, is_narrow=names is OLD) + REFUND)
        package = f"fuzz_orders_{number}"
        module = compiled_module(package, proto(*names, package=package, is_narrow=names is OLD) + REFUND)
        writers.append(_message_writer(module.Order, names))
        readers.append(document_oracle.message_reader({(0,): module.Order, (1,): module.Refund}))
    # the first, the second, one that is not there, one inside the second, none, one below zero, the second at length
    prefixes = (b"\x02\0", b"\x02\x02", b"\x02\x04", b"\x04\x02\0", b"\x01", b"\x02\x01", b"\x82\0\x82\0")
    return Written(schemas, writers, readers, prefixes)


def _message_writer(message_class: Any, names: Sequence[str]) -> Callable[[Order], bytes]:
    def write(order: Order) -> bytes:
        message = message_class()
        for name in names:
            set_field(message, name, order[name])
        return b"\0" + bytes(message.SerializeToString())

    return write


class SchemaFuzz:
    """Payloads of a format, and the oracle that judges them."""

    def __init__(self, written: Written, headers: Headers) -> None:
        self._written = written
        self._headers = headers
        self._length = len(headers.known[0])
        self._read: Mapping[bytes, Read] = dict(zip(headers.known, written.read, strict=True))

    def payloads(self, seed: int, records: int) -> Iterator[Payload]:
        """Two fifths as they should be; the others with one thing wrong, which may still leave an order."""
        rng, before = Random(seed), b"\0"
        for order in each_order(records, seed):
            order["later"] = rng.choice(("", "new\t", "ä" * 300))
            version = rng.randrange(len(VERSIONS))
            body = self._written.write[version](order)
            whole = self._headers.known[version] + body
            defect, value = ("none", whole) if rng.random() < 0.4 else self._broken(rng, whole, body, before)
            before = value or before
            yield Payload(defect, str(order["id"]).encode(), value)

    def _broken(self, rng: Random, whole: bytes, body: bytes, before: bytes) -> tuple[str, bytes | None]:
        header = whole[: self._length]
        choices: list[tuple[str, bytes | None]] = [
            ("wrong magic", bytes([whole[0] ^ rng.randrange(1, 256)]) + whole[1:]),
            ("unknown schema", self._headers.unknown + body),
            ("another kind of schema", self._headers.foreign + body),
            ("schema of another record", rng.choice(self._headers.known) + body),
            ("cut off", whole[: rng.randrange(len(whole))]),
            ("bytes behind", whole + rng.randbytes(rng.randrange(1, 4))),
            ("no body", header),
            ("tombstone", None),
        ]
        if self._written.prefixes:
            choices.append(("another message", header + rng.choice(self._written.prefixes) + body[1:]))
        for _ in range(4):
            choices.append(("broken bytes", rng.choice(MUTATIONS)(rng, whole, before)))
            choices.append(("broken body", header + rng.choice(MUTATIONS)(rng, body, before)))
        return rng.choice(choices)

    def oracle(self, key: bytes | None, value: bytes | None) -> Document | None:
        """The row of a record; None for one that is none. Raises Undecided where readers may differ."""
        if key is None:
            return None
        if value is None:
            return dict.fromkeys(document_oracle.DEFAULTS) | {"id": int(key), "_extra": None}
        header, body = value[: self._length], value[self._length :]
        if not self._headers.is_known(header):
            return None
        try:
            row = order_row(self._read[header](body))
        except Undecided:
            raise
        except Exception:  # of the readers' own
            return None
        return row if row["id"] == int(key) else None
