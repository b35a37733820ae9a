-- the rule of dbt/packages/headrace_dbt/macros/current.sql
with partition_winners as (
    select distinct on ({keys}, _generation, _partition)
        {keys},
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        {newest} as _newest
    from {staging}
    where ({keys}) is not null
    order by {keys}, _generation desc, _partition desc, _offset desc
),

winners as (
    select distinct on ({keys}) *
    from partition_winners
    order by {keys}, _generation desc, _newest desc nulls last, _timestamp desc nulls last, _partition desc
),

compared as (
    select
        winners._generation as generation,
        winners._partition as partition,
        winners._offset as at,
        {key_text} as key,
        coalesce(not winners._deleted, false) as is_expected,
        m.{first_key} is not null as is_found
    from winners
    full join only {mart} as m on {same_key}
)
