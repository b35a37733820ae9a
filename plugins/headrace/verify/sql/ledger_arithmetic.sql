select
    *,
    end_offset - start_offset as length,
    staged + dead + tombstones + empty + ignored as accounted,
    count(*) over () as total
from headrace.batches
where
    dataset = %(dataset)s
    and kind in ('drain', 'load', 'replace')
    and end_offset - start_offset <> staged + dead + tombstones + empty + ignored
order by generation, partition, start_offset
limit %(limit)s
