"""A table of all kinds of columns, and random transactions on it."""

import random
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection, errors

KEYS = 40  # few, so that transactions meet
WRITERS = 3

TABLE = """
create type public.mood as enum ('calm', 'cross');
create table public.customers (
    id bigint primary key, name text, visits int, revenue numeric(12,3), weight numeric, seen timestamp,
    joined timestamptz, born date, wakes time, code uuid, detail jsonb, mood public.mood, active boolean,
    picture bytea, score float8, note text
);
"""
COLUMNS = (
    "id, name, visits, revenue, weight, seen, joined, born, wakes, code, detail, mood, active, picture, score, note"
)
# what the contract makes of these columns: text for an enum, UTC for a time without a zone
AS_MART = COLUMNS.replace("seen", "seen at time zone 'UTC'").replace("mood", "mood::text")
DECLARATION = """
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from headrace.contract import (
    Boolean, EpochDate, Float, Integer, JsonText, MicroTime, MicroTimestamp, Numeric, Text, Timestamp,
)
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from headrace.formats import Debezium


class Customer(BaseModel):
    model_config = CONTRACT_CONFIG | {"val_json_bytes": "base64"}

    id: Integer
    name: Text | None = None
    visits: Integer | None = None
    revenue: Numeric | None = None
    weight: Numeric | None = None
    seen: MicroTimestamp | None = None
    joined: Timestamp | None = None
    born: EpochDate | None = None
    wakes: MicroTime | None = None
    code: UUID | None = None
    detail: JsonText = None
    mood: Text | None = None
    active: Boolean | None = None
    picture: bytes | None = None
    score: Float | None = None
    note: str | None = None
    added: Integer | None = None


DATASET = Dataset(
    name="customers", contract=Customer, key="id", format=Debezium(), source=KafkaTopic(topic="shop.public.customers")
)
"""
INSERT = """
insert into public.customers values (
    %(id)s, %(name)s, %(visits)s, %(revenue)s, %(weight)s, %(seen)s, %(joined)s, %(born)s, %(wakes)s,
    gen_random_uuid(), %(detail)s::jsonb, %(mood)s::public.mood, %(active)s, %(picture)s, %(score)s,
    repeat(md5(%(name)s), %(length)s)
) on conflict (id) do update set name = excluded.name, visits = excluded.visits, revenue = excluded.revenue,
    weight = excluded.weight, seen = excluded.seen, detail = excluded.detail
"""


def create(dsn: str) -> None:
    """Make the table, with a few rows for the first snapshot. Large values are sent: REPLICA IDENTITY FULL."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("alter table public.customers replica identity full")
        rng = random.Random(1)
        for key in range(0, KEYS, 3):
            connection.execute(INSERT, _values(rng, key))


def write(dsn: str, rng: random.Random, transactions: int) -> None:
    """Random transactions of some writers at once, some of which last; returns when all are committed."""
    writers = [
        threading.Thread(target=_write, args=(dsn, random.Random(rng.random()), transactions // WRITERS + 1))
        for _ in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def widen(dsn: str, rng: random.Random) -> None:
    """Give some rows a value of the column that was added; a default is in no row's change."""
    with psycopg.connect(dsn) as connection:
        for key in rng.sample(range(KEYS), 5):
            connection.execute("update public.customers set added = %s where id = %s", (rng.randrange(10**15), key))


def _write(dsn: str, rng: random.Random, transactions: int) -> None:
    with psycopg.connect(dsn) as connection:
        for _ in range(transactions):
            # two writers wait for each other's keys; one is told
            with suppress(errors.DeadlockDetected, errors.UniqueViolation), connection.transaction():
                for _ in range(rng.choice([1, 1, 2, 5])):
                    _change(connection, rng)
                    time.sleep(rng.choice([0, 0, 0.02]))


def _change(connection: Connection[Any], rng: random.Random) -> None:
    key, other = rng.randrange(KEYS), rng.randrange(KEYS)
    kind = rng.random()
    if kind < 0.5:
        connection.execute(INSERT, _values(rng, key))
    elif kind < 0.75:
        connection.execute("delete from public.customers where id = %s", (key,))
    elif kind < 0.9:
        connection.execute("update public.customers set visits = coalesce(visits, 0) + 1 where id = %s", (key,))
    else:
        connection.execute(
            "update public.customers set id = %s where id = %s and not exists "
            "(select from public.customers where id = %s)",
            (other, key, other),
        )


def _values(rng: random.Random, key: int) -> dict[str, Any]:
    values = {
        "name": f"n{rng.randrange(10**6)} ä'\"\\",
        "visits": rng.randrange(-(2**31), 2**31),
        "revenue": f"{rng.randrange(-(10**9), 10**9)}e-3",
        "weight": f"{rng.randrange(10**18)}.{rng.randrange(10**9)}",
        # not before 1583: the connector's snapshots then send days of the Julian calendar
        "seen": f"{rng.randrange(1583, 9999):04}-0{rng.randrange(1, 10)}-11 10:11:12.{rng.randrange(10**6):06}",
        "joined": f"2026-11-{rng.randrange(1, 28):02} 23:59:59.{rng.randrange(10**6):06}+0{rng.randrange(9)}",
        "born": f"{rng.randrange(1583, 9999):04}-02-03",
        "wakes": f"{rng.randrange(24):02}:00:00.{rng.randrange(10**6):06}",
        "detail": f'{{"a": [{rng.randrange(100)}.10, null], "b": "x"}}',
        "mood": rng.choice(["calm", "cross"]),
        "active": rng.random() < 0.5,
        "picture": rng.randbytes(5),
        "score": rng.random() * 10 ** rng.randrange(-20, 20),
    }
    found: dict[str, Any] = {name: None if rng.random() < 0.1 else value for name, value in values.items()}
    return found | {"id": key, "length": rng.choice([1, 1, 500])}
