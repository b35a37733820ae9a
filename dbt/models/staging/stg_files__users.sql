with

versions as (
    select * from {{ source('staging', 'users') }}
),

replaced_versions as (
    select * from {{ source('staging', 'users_replaced') }}
),

final as (
    select
        userid,
        location,
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        false as is_replaced
    from versions
    union all
    select
        userid,
        location,
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        true as is_replaced
    from replaced_versions
)

select * from final
