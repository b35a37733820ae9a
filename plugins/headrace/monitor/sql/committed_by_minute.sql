select
    b.dataset,
    b.partition,
    b.generation,
    date_trunc('minute', b.committed_at) as minute,
    coalesce(
        sum(b.staged + b.dead + b.tombstones) filter (where b.kind in ('drain', 'load', 'replace')), 0
    )::bigint,
    max(b.end_offset) filter (where b.kind in ('drain', 'load', 'replace', 'accept_loss'))
from headrace.batches as b
where b.committed_at >= %s
group by 1, 2, 3, 4
