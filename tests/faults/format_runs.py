"""A topic of one format through drains that are killed: every record is held to what its producer sent.

Record number i goes to partition i % 3, so its offset is i // 3. Schemas change every thousand records, and the
contract in the middle of the drains.
"""

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer
from psycopg.sql import SQL, Composed, Identifier, Literal

from headrace.deployment import Deployment
from headrace.settings import Settings
from headrace.verify.verification import verify
from tests.faults.loaders import ROOT, ForkServer, LoaderRun
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine
from tests.faults.trials import STEPS
from tests.support import topics
from tests.support.format_writers import DEFAULTS, VERSIONS, FormatCase, as_text
from tests.support.ledger_checks import assert_ledger
from tests.support.offset_rows import OffsetRows
from tests.support.order_schemas import NAMES
from tests.support.orders import Order, Orders, declared, each_order
from tests.support.stage import Stage

PARTITIONS = 3
KILLS = 16
BATCHES = 200  # of a whole topic, about
RUN_OF_A_SCHEMA = 1_000  # records, then the next schema
SCHEMAS_IN_TURN = (0, 1, 2, 1)  # of VERSIONS: each is followed by an older and by a newer one
MOMENT_MAX_US = (
    1  # per record: a kill that is at no step comes within this after the plan; a drain takes ten times that
)
END_LIMIT_S = 3_600.0
BROKEN = b"\xff\xfe"  # what no format begins with


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How many records, and the seed of values and kills."""

    records: int
    seed: int


@dataclass(slots=True)
class Drained:
    """What was counted: records by what they became, and the schemas' ids by their versions."""

    staged: int = 0
    dead: int = 0
    tombstones: int = 0
    kills: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    schema_ids: dict[int, set[int | None]] = field(default_factory=lambda: defaultdict(set))
    in_column: int = 0  # the newest schema's field, by the newer contract
    in_extra: int = 0  # and by the older one


def run_format(servers: Servers, folder: Path, case: FormatCase, options: RunOptions, print_line: PrintLine) -> Drained:
    """Produce, drain under kills, compare all rows, verify; AssertionError names the first record that is wrong."""
    topic = f"formats-{case.name}"
    settings = Settings(
        home=folder,
        postgres_dsn=servers.database(f"formats_{case.name}"),
        kafka_bootstrap_servers=servers.address("kafka"),
        registry_url=servers.address("registry"),
        datasets_dir=folder / "datasets",
        batch_rows=max(options.records // BATCHES, 10),
    )
    settings.datasets_dir.mkdir()
    topics.create(servers.address("kafka"), topic, PARTITIONS, retention_ms="-1")
    stage = Stage(Deployment.from_settings(settings), settings.require_postgres_dsn())
    made, found = _declared(stage, topic, case, is_newer=False), Drained()
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("produced", lambda: _produce(made, case, options)),
        ("drained", lambda: _drain(made, case, options, found)),
        ("compared", lambda: _compare(made, case, options, found)),
        ("verified", lambda: _verify(made)),
    )
    for name, step in steps:
        began = time.monotonic()
        step()
        found.seconds[name] = time.monotonic() - began
        print_line(f"{case.name}: {options.records:,} records {name} in {found.seconds[name]:.0f} s")
    return found


def _declared(stage: Stage, topic: str, case: FormatCase, *, is_newer: bool) -> Orders:
    url = stage.deployment.settings.require_registry_url()
    text = case.declaration(is_newer=is_newer)
    return declared(stage, topic, url, case.format_text(topic), case.key_format, text)


def _each(options: RunOptions) -> Iterator[tuple[int, Order, int | None]]:
    """Number, order and schema of each record; None for a tombstone, -1 for a value that is none of the format's."""
    for number, order in enumerate(each_order(options.records, options.seed)):
        order["later"] = f"new {number}"
        if number % 251 == 3:
            yield number, order, None
        elif number % 499 == 7:
            yield number, order, -1
        else:
            yield number, order, SCHEMAS_IN_TURN[number // RUN_OF_A_SCHEMA % len(SCHEMAS_IN_TURN)]


def _produce(made: Orders, case: FormatCase, options: RunOptions) -> None:
    writers, write_key = case.writers(made), case.key(made)
    producer = Producer(
        {
            "bootstrap.servers": made.stage.deployment.settings.kafka_bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
        }
    )
    for number, order, version in _each(options):
        key = write_key(order["id"]) if case.has_keys or version is None else None
        value = None if version is None else BROKEN + b"%d" % number if version < 0 else writers[version](order)
        while True:
            try:
                producer.produce(made.topic, key=key, value=value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(300) == 0


def _drain(made: Orders, case: FormatCase, options: RunOptions, found: Drained) -> None:
    """Drains that are killed, at a step or at any moment; then one to the end. The contract changes between them."""
    settings, rng = made.stage.deployment.settings, random.Random(options.seed)
    server = ForkServer(ROOT / "plugins", settings.home / "fork_server.log")
    request = {
        "what": "drain",
        "dataset": "orders",
        "settings": {
            **{name: str(getattr(settings, name)) for name in ("home", "postgres_dsn", "datasets_dir")},
            "kafka_bootstrap_servers": settings.kafka_bootstrap_servers,
            "registry_url": settings.registry_url,
            "batch_rows": settings.batch_rows,
        },
    }
    try:
        for number in range(KILLS):
            if number == KILLS // 2:
                _declared(made.stage, made.topic, case, is_newer=True)
            step = rng.choice((*STEPS, *[""] * len(STEPS)))
            action = {"step": step, "nth": rng.randint(1, BATCHES // KILLS), "do": "kill"}
            run = server.fork(request | {"run_id": f"kill-{number}", "actions": [action] if step else []})
            if not step and run.wait_until_planned() is not None:
                time.sleep(rng.uniform(0, MOMENT_MAX_US * options.records / 1e6))
                run.signal(signal.SIGKILL)
            found.kills += _ended(run) == "killed"
        while _ended(server.fork(request | {"run_id": "last"})) != "done":
            pass
    finally:
        server.close()


def _ended(run: LoaderRun) -> str:
    """How a run ended. A new run is the answer to a source that does not answer: a busy machine has slow brokers."""
    ended = run.end(END_LIMIT_S)
    run.close()
    assert ended.how in ("killed", "done") or ended.error in ("SourceError", "SourceUnavailable"), ended.text
    return ended.how


def _compare(made: Orders, case: FormatCase, options: RunOptions, found: Drained) -> None:
    """Each record is exactly one row or one dead letter, with the producer's own values."""
    write_key = case.key(made)
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(made.stage.dsn))
        rows = [OffsetRows(stack, connection, _staged_query(case, p), 5_000) for p in range(PARTITIONS)]
        dead = [OffsetRows(stack, connection, _dead_query(p), 500) for p in range(PARTITIONS)]
        for number, order, version in _each(options):
            partition, offset = number % PARTITIONS, number // PARTITIONS
            row, dead_letter = rows[partition].take(offset), dead[partition].take(offset)
            where = f"{case.name}[{partition}] offset {offset}: found {row} and {dead_letter}, expected {order}"
            assert (row is None) != (dead_letter is None), where
            key = write_key(order["id"]) if case.has_keys or version is None else None
            if dead_letter is not None:
                assert version == -1, where
                assert dead_letter == (key, BROKEN + b"%d" % number), where
                found.dead += 1
            elif row is not None:
                assert version != -1, where
                assert row[:2] == (key, version is None), where
                _compare_row(case, order, version, row, where, found)
        assert all(cursor.is_exhausted for cursor in (*rows, *dead)), "rows that were never produced"
    assert found.staged + found.dead + found.tombstones == options.records
    assert_ledger(made.stage, dataset="orders")


def _compare_row(
    case: FormatCase, order: Order, version: int | None, row: tuple[Any, ...], where: str, found: Drained
) -> None:
    schema_id, later, extra, *values = row[2:]
    if version is None:
        found.tombstones += 1
        assert values == [order["id"], *[None] * (len(values) - 1)], where
        return
    found.staged += 1
    found.schema_ids[version].add(schema_id)
    if case.is_text:
        assert values == [order["id"], as_text(order)], where
        return
    names = VERSIONS[version]
    assert values == [order[name] if name in names else DEFAULTS.get(name) for name in NAMES], where
    new = order["later"] if "later" in names else None
    assert (later, extra) in ((new, None), (None, new and {"later": new})), where
    found.in_column += later is not None
    found.in_extra += extra is not None


def _staged_query(case: FormatCase, partition: int) -> Composed:
    columns = ("id", "value") if case.is_text else NAMES
    return SQL(
        "select _offset, _key, _deleted, {}, {}, _extra, {} from staging.orders where _partition = {} order by _offset"
    ).format(
        Identifier("_schema_id") if case.has_schemas else SQL("null"),
        SQL("null") if case.is_text else Identifier("later"),
        SQL(", ").join(map(Identifier, columns)),
        Literal(partition),
    )


def _dead_query(partition: int) -> Composed:
    return SQL(
        'select "offset", key, value from headrace.dead_letters where dataset = {} and partition = {} order by "offset"'
    ).format(Literal("orders"), Literal(partition))


def _verify(made: Orders) -> None:
    verification = verify(made.stage.deployment, "orders", deep=True)
    assert verification.is_clean, list(verification.lines())
