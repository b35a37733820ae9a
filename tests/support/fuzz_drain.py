"""Fuzzed payloads through a real broker into a real Postgres, every record accounted for.

`make fuzz` runs it with a million; tests/integration/test_fuzz_drain.py with 20,000. Record number i goes to partition
i % 3, so its offset is i // 3: the producer's own account, to which the drain's result is held.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import SystemRandom
from typing import Any

import psycopg
from kafka import KafkaAdminClient, KafkaProducer
from psycopg.sql import SQL, Composed, Identifier

from headrace.deployment import Deployment
from headrace.exceptions import RegistryUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.local import services
from headrace.settings import Settings
from tests.support import fuzz_oracle
from tests.support.document_oracle import Undecided
from tests.support.fuzz_payloads import Header, Payload
from tests.support.fuzz_targets import FORMATS, PLAIN_FORMATS, FuzzTarget, targets
from tests.support.offset_rows import OffsetRows

PARTITIONS = 3
BYTES_MAX = 20_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REASON = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class DrainTotals:
    """What became of a target's payloads. undecided: of how many the oracle does not know whether they are valid."""

    staged: int
    tombstones: int
    reasons: Counter[str]
    drain_s: float
    undecided: int

    @property
    def dead(self) -> int:
        """Dead letters in all."""
        return self.reasons.total()

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
        undecided = f", {self.undecided} not judged" if self.undecided else ""
        return f"{self.staged} staged, {self.tombstones} tombstones, {self.dead} dead ({reasons}){undecided}"


def run(deployment: Deployment, target: FuzzTarget, topic: str, seed: int, records: int) -> DrainTotals:
    """Produce, drain, and hold every record to the oracle; AssertionError names the first one that is not right."""
    _produce(deployment.kafka(), topic, _sendable(target, seed, records))
    if target.has_registry:
        _check_registry_down(deployment, target)
    began = time.monotonic()
    _, result = drain_dataset(deployment, target.name)
    drain_s = time.monotonic() - began
    account = _check(deployment, target, _sendable(target, seed, records), drain_s)
    assert account.staged + account.tombstones + account.dead == records, account
    assert (result.staged, result.tombstones, result.dead) == (account.staged, account.tombstones, account.dead)
    return account


def _check_registry_down(deployment: Deployment, target: FuzzTarget) -> None:
    """Without its registry a drain fails and stores nothing: nothing is known of the records."""
    settings = replace(deployment.settings, registry_url="http://127.0.0.1:1", max_retries=0)
    try:
        _, result = drain_dataset(Deployment.from_settings(settings), target.name)
    except RegistryUnavailable:
        return
    raise AssertionError(f"{target.name}: a drain without a registry stored {result}, expected RegistryUnavailable")


def _sendable(target: FuzzTarget, seed: int, records: int) -> Iterator[Payload]:
    """The payloads, less what kafka-python's producer does not send: null headers, neither key nor value."""
    for payload in target.payloads(seed, records):
        key = b"" if payload.key is None and payload.value is None else payload.key
        headers: list[Header] = [(name, value or b"") for name, value in payload.headers]
        yield Payload(payload.defect, key, payload.value, headers)


def _produce(client_config: Any, topic: str, records: Iterable[Payload]) -> None:
    admin = KafkaAdminClient(**client_config)
    options = {"num_partitions": PARTITIONS, "configs": {"max.message.bytes": str(BYTES_MAX)}}
    admin.create_topics({topic: options}, wait_for_metadata=True)
    admin.close()
    failures: list[BaseException] = []
    producer = KafkaProducer(
        **client_config,
        enable_idempotence=True,
        acks="all",
        linger_ms=20,
        batch_size=512 * 1024,
        max_request_size=BYTES_MAX,
        metrics_enabled=False,
    )
    for number, payload in enumerate(records):
        producer.send(
            topic, key=payload.key, value=payload.value, headers=payload.headers, partition=number % PARTITIONS
        ).add_errback(failures.append)
        assert not failures, failures
    producer.flush()
    producer.close()
    assert not failures, failures


def _check(deployment: Deployment, target: FuzzTarget, records: Iterable[Payload], drain_s: float) -> DrainTotals:
    reasons: Counter[str] = Counter()
    staged = tombstones = undecided = 0
    fields = [
        (column.field, column.name, column.sql_type) for column in deployment.dataset(target.name).compiled.columns
    ]
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(deployment.settings.require_postgres_dsn()))
        rows = [OffsetRows(stack, connection, _staged_query(target, fields, p)) for p in range(PARTITIONS)]
        dead = [OffsetRows(stack, connection, _dead_query(target, p)) for p in range(PARTITIONS)]
        for number, payload in enumerate(records):
            partition, offset = number % PARTITIONS, number // PARTITIONS
            where = f"{target.name}[{partition}] offset {offset} ({payload.defect}): {payload!r:.2000}"
            row, dead_letter = rows[partition].take(offset), dead[partition].take(offset)
            assert (row is None) != (dead_letter is None), f"{where}: neither or both of staged and dead"
            is_judged, expected = _judged(target, payload)
            undecided += not is_judged
            found = row or dead_letter
            assert found is not None
            key, headers = found[:2]
            assert key == payload.key, f"{where}: key {key!r:.100}"
            assert _headers(headers) == payload.headers, f"{where}: headers {headers}"
            if dead_letter is not None:
                value, reason, detail = dead_letter[2:]
                assert expected is None, f"{where}: dead for {reason}, {detail}; the oracle says it is valid"
                assert value == payload.value, f"{where}: value"
                assert REASON.fullmatch(reason), f"{where}: reason {reason}"
                assert reason != "unknown", where
                reasons[reason] += 1
            elif row is not None:
                assert expected is not None or not is_judged, f"{where}: staged; the oracle says it breaks the contract"
                if expected is not None:
                    assert _row(fields, row[3:]) == _comparable(expected), f"{where}: {row}"
                assert row[2] == (payload.value is None), where
                tombstones += row[2]
                staged += not row[2]
        for cursor in (*rows, *dead):
            assert cursor.is_exhausted, "rows that were never produced"
    return DrainTotals(staged, tombstones, reasons, drain_s, undecided)


def _judged(target: FuzzTarget, payload: Payload) -> tuple[bool, dict[str, Any] | None]:
    """Whether the oracle knows what a payload is, and its row; None for one that breaks the contract."""
    try:
        return True, target.oracle(payload.key, payload.value)
    except Undecided:
        return False, None


def _staged_query(target: FuzzTarget, fields: list[tuple[str, str, str]], partition: int) -> Composed:
    # as text or as seconds where Python could not hold what Postgres does: years beyond 9999, numbers in jsonb
    kinds = {"timestamptz": "extract(epoch from {})", "jsonb": "({})::text"}
    columns = [SQL(kinds.get(kind, "{}")).format(Identifier(name)) for _, name, kind in fields]
    return SQL(
        "select _offset, _key, _headers, _deleted, {}, _extra::text from {} where _partition = {} order by _offset"
    ).format(SQL(", ").join(columns), Identifier("staging", target.name), partition)


def _dead_query(target: FuzzTarget, partition: int) -> Composed:
    return SQL(
        'select "offset", key, headers, value, reason, detail from headrace.dead_letters '
        'where dataset = {} and partition = {} order by "offset"'
    ).format(target.name, partition)


def _row(fields: list[tuple[str, str, str]], values: tuple[Any, ...]) -> dict[str, Any]:
    row = {field: value for (field, _, _), value in zip(fields, values[:-1], strict=True)}
    for field, _, kind in fields:
        if kind == "jsonb" and row[field] is not None:
            row[field] = fuzz_oracle.exact_json(row[field])
    return row | {"_extra": None if values[-1] is None else fuzz_oracle.exact_json(values[-1])}


def _comparable(expected: dict[str, Any]) -> dict[str, Any]:
    return {field: _seconds(value) if isinstance(value, datetime) else value for field, value in expected.items()}


def _seconds(at: datetime) -> Decimal:
    return Decimal((at - EPOCH) // timedelta(microseconds=1)) / 1_000_000


def _headers(headers: list[dict[str, str | None]] | None) -> list[Header]:
    read: list[Header] = []
    for header in headers or []:
        name = header["key"] if "key" in header else b64decode(header["key_base64"] or "").decode()
        text = header.get("value")
        value = b64decode(header["base64"] or "") if "base64" in header else text if text is None else text.encode()
        read.append((name or "", value))
    return read


def main() -> None:
    """Fuzz every target in services of its own, or in given ones; exit 1 at the first record that is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--format", choices=FORMATS, default=None)
    parser.add_argument("--services", nargs=3, metavar=("POSTGRES", "KAFKA", "REGISTRY"), default=None)
    parser.add_argument("--prefix", default="", help="of the topics")
    arguments = parser.parse_args()
    seed = SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"fuzz: {arguments.records} records, seed {seed}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
    home.chmod(0o755)
    needed = ("postgres", "kafka", *(("registry",) if arguments.format not in PLAIN_FORMATS else ()))
    try:
        addresses = arguments.services or _started(home, needed)
        _fuzz(home, addresses, arguments, seed)
    except AssertionError as error:
        sys.exit(f"fuzz: seed {seed}: {error}")
    finally:
        if not arguments.services:
            services.down(Settings(home=home), print_line=lambda _line: None)
        shutil.rmtree(home, ignore_errors=True)
    print(f"fuzz: seed {seed}: all accounted for")


def _started(home: Path, needed: Sequence[str]) -> list[str | None]:
    found = services.up(Settings(home=home), only=needed, print_line=lambda _line: None)
    return [found[name]["address"] if name in needed else None for name in ("postgres", "kafka", "registry")]


def _fuzz(home: Path, addresses: Sequence[str | None], arguments: argparse.Namespace, seed: int) -> None:
    postgres, kafka, registry = addresses
    settings = Settings(
        home=home, postgres_dsn=postgres, kafka_bootstrap_servers=kafka, registry_url=registry, datasets_dir=home
    )
    chosen = targets(arguments.format, registry)
    for target in chosen:
        target.declare(home, f"{arguments.prefix}{target.name}")
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    for number, target in enumerate(chosen):
        began = time.monotonic()
        share = arguments.records // len(chosen) + (number < arguments.records % len(chosen))
        account = run(deployment, target, f"{arguments.prefix}{target.name}", seed, share)
        took = time.monotonic() - began
        print(
            f"{target.name}: {share} produced, {account}; drained in {account.drain_s:.0f} s of {took:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
