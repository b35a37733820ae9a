{{
    config(
        unique_key='event_id',
        meta={'emptied': 'ts is null'},
        pre_hook="{{ claim('telemetry', settings=thresholds()) }}",
        indexes=[
            {'columns': ['event_id'], 'unique': true},
            {'columns': [minute_of('ts'), 'zone', 'kpi']},
        ],
    )
}}

with

versions as (
    select * from {{ ref('stg_redis__telemetry') }}
),

first_versions as (
    {{ current_version('versions', 'telemetry', key='event_id', wins='first') }}
),

final as (
    select
        event_id,
        device_id,
        zone,
        ts,
        kpi,
        value,
        coalesce(value > {{ threshold_of('kpi') }}, false) as is_degraded
    from first_versions
)

select * from final
{{ without_emptied() }}
