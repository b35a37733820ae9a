select
    l.dataset,
    l.generation,
    l.partition,
    l."offset",
    l."timestamp"::text as "timestamp",
    l.reason,
    l.detail,
    l.json_path,
    l.masked,
    l.headers as stored_headers,
    octet_length(l.key) as key_size,
    substring(l.key from 1 for %(bytes)s) as key,
    octet_length(l.value) as value_size,
    substring(l.value from 1 for %(bytes)s) as value,
    l.published_at,
    b.seq,
    b.committed_at,
    b.dag_id,
    b.run_id,
    b.task_id,
    b.map_index,
    replayed.seq as replayed_seq,
    replayed.committed_at as replayed_at
from headrace.dead_letters as l
inner join headrace.batches as b on b.batch_id = l.batch_id
left join headrace.batches as replayed on replayed.batch_id = l.replayed_by
where
    l.dataset = %(dataset)s
    and l.generation = %(generation)s
    and l.partition = %(partition)s
    and l."offset" = %(offset)s
