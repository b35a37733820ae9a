"""Orders as a second client writes them: confluent-kafka's serializers, with schemas that it registers itself."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.serialization import MessageField, SerializationContext

from headrace.ingest.prepare import initialise
from tests.support.stage import Stage

Order = dict[str, Any]
Serialize = Callable[[Order], bytes]

DECLARATION = '''
"""Orders with every logical type."""

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from headrace.contract import Date, Float, Identifier, Integer, Numeric, TimeOfDay, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from headrace.formats import *


class Order(BaseModel):
    model_config = CONTRACT_CONFIG | ConfigDict(val_json_bytes="base64")

    id: Integer
    amount: Numeric
    at: Timestamp
    nanos: Integer | None = None
    seen: Timestamp | None = None
    day: Date | None = None
    clock: TimeOfDay | None = None
    uid: UUID | None = None
    raw: bytes | None = None
    ratio: Float | None = None
    tags: list[Any] = []
    attributes: dict[str, Any] = {}
    note: Identifier | None = None
    status: Identifier = "NEW"


DATASET = Dataset(
    name="orders", contract=Order, source=KafkaTopic(topic="TOPIC"), key="id", time_column="at", format=FORMAT,
    key_format=KEY_FORMAT,
)
'''


@dataclass(frozen=True, slots=True)
class Orders:
    """A deployment with the dataset `orders` of one format, and a producer of another client."""

    stage: Stage
    topic: str
    registry: SchemaRegistryClient

    def query(self, columns: str) -> list[tuple[Any, ...]]:
        """These columns of all staged orders, by id."""
        return self.stage.query(f"select {columns} from staging.orders order by id, _offset")

    def register(self, text: str, kind: str, subject: str | None = None) -> int:
        """Register a schema for values; return its id."""
        return int(self.registry.register_schema(subject or f"{self.topic}-value", Schema(text, kind)))

    def context(self, field: MessageField = MessageField.VALUE) -> SerializationContext:
        """What serializers are told."""
        return SerializationContext(self.topic, field)

    def send(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Send keys and values, spread over the partitions by their keys."""
        servers = self.stage.deployment.settings.kafka_bootstrap_servers
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
        for key, value in records:
            producer.produce(self.topic, key=key, value=value)
        assert producer.flush(30) == 0


def declared(
    stage: Stage, topic: str, registry_url: str, format: str, key_format: str = "None", text: str = DECLARATION
) -> Orders:
    """Declare orders in a stage whose settings name the registry."""
    text = text.replace("TOPIC", topic).replace("KEY_FORMAT", key_format).replace("FORMAT", format)
    (stage.deployment.settings.datasets_dir / "orders.py").write_text(text)
    initialise(stage.deployment)
    return Orders(stage, topic, SchemaRegistryClient({"url": registry_url}))


def orders(count: int, seed: int, *, first: int = 1) -> list[Order]:
    """Random orders, with values at the ends of what their types hold among them."""
    return list(each_order(count, seed, first=first))


def each_order(count: int, seed: int, *, first: int = 1) -> Iterator[Order]:
    """The same, one after the other."""
    rng = random.Random(seed)
    for number in range(first, first + count):
        yield _order(rng, number)


def _order(rng: random.Random, number: int) -> Order:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=rng.randrange(10**13))
    return {
        "id": number,
        "amount": Decimal(rng.choice([0, 1, -1, 10**17 - 1, rng.randrange(10**17)])).scaleb(-4),
        "at": moment,
        "nanos": rng.choice([0, -1, 2**63 - 1, 1_700_000_000_123_456_789 + rng.randrange(10**9)]),
        "seen": rng.choice([None, moment.replace(microsecond=moment.microsecond // 1000 * 1000)]),
        "day": rng.choice([date(1, 1, 2), date(1970, 1, 1), date(9999, 12, 31), moment.date()]),
        "clock": rng.choice([time(0), time(23, 59, 59, 999_999), moment.time()]),
        "uid": UUID(int=rng.getrandbits(128)),
        "raw": rng.randbytes(rng.randrange(6)),
        "ratio": rng.choice([0.0, 0.1, -1e-9, 1e99, rng.random()]),
        "tags": [rng.choice(["a", "ä\t\\", '"', "\n"]) for _ in range(rng.randrange(3))],
        "attributes": {"n": str(rng.randrange(10**6)), "empty": ""},
        "note": rng.choice([None, "x\\y", "tab\there", "äöü" * 20]),
        "status": rng.choice(["NEW", "PAID"]),
    }


def row(order: Order, names: Sequence[str]) -> tuple[Any, ...]:
    """What Postgres gives for an order."""
    return tuple(order[name] for name in names)
