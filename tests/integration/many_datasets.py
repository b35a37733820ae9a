"""Bookkeeping of thousands of datasets, written by SQL."""

from typing import Any

from psycopg import Connection

SEED = """
insert into headrace.datasets (dataset, last_seq)
select 'd' || lpad(n::text, 5, '0'), 6 from generate_series(1, %(datasets)s) as n;

insert into headrace.generations (dataset, generation, topic, topic_id)
select dataset, 1, dataset, dataset from headrace.datasets;

insert into headrace.checkpoints (dataset, generation, partition, next_offset)
select dataset, 1, partition, 300 from headrace.datasets, generate_series(0, 1) as partition;

insert into headrace.observations (dataset, partition, end_offset, high_watermark, observed_at)
select dataset, partition, 300 + partition * 10, 300 + partition * 10, now()
from headrace.datasets, generate_series(0, 1) as partition;

insert into headrace.batches (
    batch_id, dataset, seq, generation, partition, start_offset, end_offset, staged, dead, kind, started_at,
    committed_at, first_record_at, last_record_at
)
select
    gen_random_uuid(), dataset, seq, 1, seq %% 2, (seq - 1) / 2 * 100, (seq - 1) / 2 * 100 + 100, 99, 1, 'drain', at,
    at + interval '1 s', at - interval '3 s', at - interval '2 s'
from headrace.datasets, generate_series(1, 6) as seq,
    lateral (select now() - (7 - seq) * interval '6 min' as at) as a;

insert into headrace.samples (dataset, generation, partition, minute, end_offset, next_offset, observed_at)
select
    dataset, 1, partition, date_trunc('minute', now() - minute * interval '5 min'), 300, 290,
    now() - minute * interval '5 min'
from headrace.datasets, generate_series(0, 1) as partition, generate_series(0, 1) as minute;

insert into headrace.dead_letters (
    dataset, generation, partition, "offset", value, "timestamp", reason, detail, json_path, batch_id
)
select b.dataset, 1, b.partition, b.start_offset, '\\x7b', now(), 'invalid_json', 'no JSON', '$', b.batch_id
from headrace.batches as b
where b.seq <= 2;

insert into headrace.claims (schema, identifier, dataset, to_seq, seen)
select 'marts', dataset, dataset, 4, '{}' from headrace.datasets;

insert into headrace.builds (
    build_id, pass, schema, model, kind, status, rows, seconds, started_at, finished_at, tested, has_claim,
    project
)
select '00000000-0000-0000-0000-000000000001', 1, 'marts', dataset, 'model', 'success', 10, 0.2, now(), now(), true,
    true, ''
from headrace.datasets;
"""


def seed(connection: Connection[Any], datasets: int) -> None:
    """Two partitions, 6 batches, 4 samples, 2 dead letters and a model each, in a database that was just migrated."""
    for statement in SEED.split(";\n"):
        if statement.strip():
            connection.execute(statement.encode(), {"datasets": datasets})
    connection.execute("analyze")
