-- the rule of dbt/packages/headrace_dbt/macros/current.sql
with partition_winners as (
    select distinct on ({key}, _generation, _partition)
        {key},
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        {newest} as _newest
    from {staging}
    where {key} is not null
    order by {key}, _generation desc, _partition desc, _offset desc
),

winners as (
    select distinct on ({key}) *
    from partition_winners
    order by {key}, _generation desc, _newest desc nulls last, _timestamp desc nulls last, _partition desc
),

compared as (
    select
        winners._generation as generation,
        winners._partition as partition,
        winners._offset as at,
        coalesce(winners.{key}, m.{key})::text as key,
        coalesce(not winners._deleted, false) as is_expected,
        m.{key} is not null as is_found
    from winners
    full join only {mart} as m on winners.{key} = m.{key}
)
