with

source as (
    select * from {{ current('jobs', key='jobidentifier') }}
),

renamed as (
    select
        jobidentifier,
        userid,
        jobcreatedate,
        jobdate,
        jobstatus,
        location,
        revenue as reported_revenue,
        servicename
    from source
)

select * from renamed
