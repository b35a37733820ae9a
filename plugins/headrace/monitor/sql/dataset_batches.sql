select
    dataset, seq, kind, partition, start_offset, end_offset, staged, dead, tombstones,
    round(extract(epoch from committed_at - started_at), 3)::double precision as seconds,
    committed_at, dag_id, run_id, task_id, map_index
from headrace.batches
where dataset = %(dataset)s
order by seq desc
limit %(batches)s
