-- records whose elements are not 0 to n - 1 for the n that their row states, and elements without a record
with elements as (
    select _generation, _partition, _offset, count(*) as found, min(_index) as least, max(_index) as most
    from {elements}
    group by _generation, _partition, _offset
),

compared as (
    select
        _generation as generation,
        _partition as partition,
        _offset as at,
        records._batch_id is null as is_orphan,
        coalesce(records.{count_column}, 0) as expected,
        coalesce(elements.found, 0) as found,
        elements.least,
        elements.most
    from {staging} as records
    full join elements using (_generation, _partition, _offset)
)

select *, count(*) over () as total
from compared
where
    is_orphan
    or found <> expected
    or (found > 0 and (least <> 0 or most <> found - 1))
order by generation, partition, at
limit %(limit)s
