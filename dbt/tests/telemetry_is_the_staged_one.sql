-- marts.telemetry holds exactly the ids that a staged entry has
with

versions as (
    select * from {{ ref('stg_redis__telemetry') }}
),

staged as (
    {{ current_version('versions', 'telemetry', key='event_id', wins='first') }}
),

telemetry as (
    select * from {{ ref('telemetry') }}
),

final as (
    select
        staged.event_id as staged_event_id,
        telemetry.event_id
    from staged
    full join telemetry on staged.event_id = telemetry.event_id
    where
        (staged.event_id is null or telemetry.event_id is null)
        and {{ has_built_all(ref('telemetry'), 'telemetry') }}
)

select * from final
