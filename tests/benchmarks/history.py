"""A long past for a dataset: records staged by the million, with ledger lines, as the loader would have left them.

Record number n has a fixed content, whatever was staged before: a longer history holds a shorter one. Its key, its
time and the rest are drawn by hashing n inside Postgres, where a COPY from Python would take ten times as long. The
mix is harder on the marts than the generators' one: updates and late records also reach back to any time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from headrace.postgres.checkpoints import Checkpoints
from headrace.sample.generate import generate_records
from headrace.settings import ROOT

PARTITIONS = 3
BATCH_ROWS = 20_000  # HEADRACE_BATCH_ROWS as it is set by default
CHUNK = 1_000_000  # records that are committed together
FIRST_SECOND = 1_735_689_600  # 2025-01-01
SECONDS_EACH = 3  # 20 records a minute, however many there are

SAMPLE = 2_000  # generated records of which the payload's mean size is taken

FUNCTIONS = """
create schema bench;

-- a number below `bound` that n alone decides; `salt` makes it another one for another use
create function bench.draw(n bigint, salt bigint, bound bigint) returns bigint immutable parallel safe language sql
return (hashint8extended(n, salt) & 9223372036854775807) % bound;

-- which entity record n is about: in `percent` of the records an earlier one, half of those any, half a recent one
create function bench.entity(n bigint, percent bigint) returns bigint immutable parallel safe language sql
return case
    when n = 0 or bench.draw(n, 10, 200) >= 2 * percent then n
    when bench.draw(n, 10, 200) < percent then bench.draw(n, 11, n)
    else n - 1 - bench.draw(n, 11, least(n, 10000))
end;

-- the second in which entity e began: 2 % are late by up to a day, 1 % by anything
create function bench.second(e bigint) returns bigint immutable parallel safe language sql
return {first_second} + e * {seconds_each} + bench.draw(e, 4, 60) - case
    when bench.draw(e, 13, 100) < 2 then least(bench.draw(e, 14, 86400), e * {seconds_each})
    when bench.draw(e, 13, 100) = 2 then bench.draw(e, 14, e * {seconds_each} + 1)
    else 0
end;

-- as random as the ids that producers draw
create function bench.event_id(e bigint) returns text immutable parallel safe language sql
return md5('event ' || e::text)::uuid::text;

create table bench.users as
select row_number() over (order by userid) - 1 as number, userid, location
from staging.users;
create index on bench.users (number);
analyze bench.users;

create table bench.batches (batch_id uuid, partition int, start_offset bigint, end_offset bigint);
"""

# `offset 0` keeps Postgres from writing the drawn entity out wherever it is used
RECORDS = """
    select
        batch_id,
        partition,
        place,
        place * {partitions} + partition as n,
        bench.entity(place * {partitions} + partition, {percent}) as e
    from bench.batches
    cross join lateral generate_series(start_offset, end_offset - 1) as places (place)
    offset 0
"""

JOBS = """
insert into staging.jobs (
    jobcreatedate, jobdate, jobidentifier, jobstatus, location, revenue, servicename, userid,
    _generation, _partition, _offset, _timestamp, _key, _extra, _batch_id
)
select
    to_timestamp(bench.second(r.e)),
    to_timestamp(bench.second(r.e) + bench.draw(r.n, 8, 7200)),
    1000001 + r.e,
    case when bench.draw(r.n, 5, 100) < 15 then 'NO SUCCESS' else 'SUCCESS' end,
    case when bench.draw(r.e, 2, 10) < 7 then workers.location else visited.location end,
    bench.draw(r.n, 6, 50000) / 100.0,
    'SERVICE_' || lpad((1 + bench.draw(r.e, 7, 40))::text, 2, '0'),
    workers.userid,
    1, r.partition, r.place, to_timestamp({first_second} + r.n * {seconds_each} + 60),
    convert_to((1000001 + r.e)::text, 'UTF8'),
    case when bench.draw(r.n, 9, 100) = 0 then '{{"CHANNEL": "web"}}'::jsonb end,
    r.batch_id
from ({records}) as r
inner join bench.users as workers on workers.number = bench.draw(r.e, 1, {users})
inner join bench.users as visited on visited.number = bench.draw(r.e, 3, {users})
"""

EVENTS = """
insert into staging.events (
    event_id, event_time, user_id, event_type, payload, schema_version,
    _generation, _partition, _offset, _timestamp, _key, _batch_id
)
select
    bench.event_id(r.e),
    to_timestamp(bench.second(r.e)),
    'user_' || bench.draw(r.e, 6, 5000),
    ('{{page_view,page_view,page_view,click,click,purchase}}'::text[])[1 + bench.draw(r.e, 5, 6)],
    jsonb_build_object('value', bench.draw(r.e, 7, 100)),
    1,
    1, r.partition, r.place, to_timestamp({first_second} + r.n * {seconds_each} + 60),
    convert_to('user_' || bench.draw(r.e, 6, 5000), 'UTF8'),
    r.batch_id
from ({records}) as r
"""

LEDGER = """
insert into headrace.batches (
    batch_id, dataset, seq, generation, partition, start_offset, end_offset, staged, bytes, started_at, kind
)
select
    batch_id, %(dataset)s, last_seq + row_number() over (order by start_offset, partition), 1, partition,
    start_offset, end_offset, end_offset - start_offset, (end_offset - start_offset) * %(bytes_each)s, now(), 'drain'
from bench.batches
cross join headrace.datasets
where dataset = %(dataset)s
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """What the records of a dataset look like; `percent` of them are about an earlier one's entity."""

    dataset: str
    insert: str
    percent: int

    def payload_bytes(self) -> float:
        """The mean size of a record's value, as the generator writes it."""
        records = generate_records(self.dataset, SAMPLE, 1, 0.0, ROOT / "data-files")
        return sum(len(record.value) for record in records) / SAMPLE


WORKLOADS = {workload.dataset: workload for workload in (Workload("jobs", JOBS, 10), Workload("events", EVENTS, 3))}


def prepare(connection: Connection[Any]) -> None:
    """Make what the records are drawn with; users are staged already."""
    connection.execute(FUNCTIONS.format(first_second=FIRST_SECOND, seconds_each=SECONDS_EACH).encode())


def stage(connection: Connection[Any], workload: Workload, first: int, last: int) -> None:
    """Stage the records [first, last) in batches of the loader's size."""
    for begin in range(first, last, CHUNK):
        end = min(begin + CHUNK, last)
        with connection.transaction():
            _stage_chunk(connection, workload, begin, end)


def _stage_chunk(connection: Connection[Any], workload: Workload, first: int, last: int) -> None:
    Checkpoints(connection, workload.dataset).register()
    connection.execute(
        "insert into headrace.generations (dataset, generation, topic, topic_id) values (%s, 1, %s, 'bench') "
        "on conflict do nothing",
        (workload.dataset, workload.dataset),
    )
    batches = sorted(_batches(first, last), key=lambda batch: (batch[2], batch[1]))
    connection.execute("truncate bench.batches")
    connection.cursor().executemany("insert into bench.batches values (%s, %s, %s, %s)", batches)
    connection.execute(_rows(connection, workload))
    connection.execute(LEDGER.encode(), {"dataset": workload.dataset, "bytes_each": round(workload.payload_bytes())})
    connection.execute(
        "update headrace.datasets set last_seq = last_seq + %s where dataset = %s", (len(batches), workload.dataset)
    )
    connection.execute(
        "insert into headrace.checkpoints (dataset, generation, partition, next_offset) "
        "select %s, 1, partition, max(end_offset) from bench.batches group by partition "
        "on conflict (dataset, generation, partition) do update set next_offset = excluded.next_offset",
        (workload.dataset,),
    )


def _batches(first: int, last: int) -> Iterator[tuple[UUID, int, int, int]]:
    """Id, partition and offsets of the batches that hold the records [first, last); n is offset * 3 + partition."""
    for partition in range(PARTITIONS):
        begin, end = (-((partition - number) // PARTITIONS) for number in (first, last))
        for start in range(begin, end, BATCH_ROWS):
            yield uuid4(), partition, start, min(start + BATCH_ROWS, end)


def _rows(connection: Connection[Any], workload: Workload) -> bytes:
    (users,) = connection.execute("select count(*) from bench.users").fetchone() or (0,)
    records = RECORDS.format(partitions=PARTITIONS, percent=workload.percent)
    return workload.insert.format(
        records=records, users=users, first_second=FIRST_SECOND, seconds_each=SECONDS_EACH
    ).encode()


def bytes_per_record(connection: Connection[Any], schema: str, name: str, records: int) -> dict[str, float]:
    """Bytes of a table ("table") and of each of its indexes, by what it indexes, for each of so many records."""
    target = SQL("{}").format(Identifier(schema, name)).as_string(connection)
    sizes = connection.execute(
        """
        select 'table', pg_table_size(%(target)s::regclass)
        union all
        select regexp_replace(pg_get_indexdef(indexrelid), '^.*USING btree ', ''), pg_relation_size(indexrelid)
        from pg_index
        where indrelid = %(target)s::regclass
        """,
        {"target": target},
    ).fetchall()
    return {what: size / records for what, size in sizes}
