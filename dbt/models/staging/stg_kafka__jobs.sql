with

versions as (
    select * from {{ source('staging', 'jobs') }}
),

replaced_versions as (
    select * from {{ source('staging', 'jobs_replaced') }}
),

final as (
    select
        jobidentifier,
        userid,
        jobcreatedate,
        jobdate,
        jobstatus,
        location,
        revenue as reported_revenue,
        servicename,
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        false as is_replaced
    from versions
    union all
    select
        jobidentifier,
        userid,
        jobcreatedate,
        jobdate,
        jobstatus,
        location,
        revenue as reported_revenue,
        servicename,
        _generation,
        _partition,
        _offset,
        _timestamp,
        _deleted,
        true as is_replaced
    from replaced_versions
)

select * from final
