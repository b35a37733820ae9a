-- marts.jobs holds exactly the keys whose newest staged version is no tombstone
with

versions as (
    select * from {{ ref('stg_kafka__jobs') }}
),

staged as (
    {{ current_version('versions', 'jobs', key='jobidentifier') }}
),

jobs as (
    select * from {{ ref('jobs') }}
),

final as (
    select
        staged.jobidentifier as staged_jobidentifier,
        jobs.jobidentifier
    from staged
    full join jobs on staged.jobidentifier = jobs.jobidentifier
    where
        (staged.jobidentifier is null or jobs.jobidentifier is null)
        and {{ has_built_all(ref('jobs'), 'jobs') }}
)

select * from final
