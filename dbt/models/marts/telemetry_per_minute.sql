{{
    config(
        unique_key=['minute', 'zone', 'kpi'],
        meta={'emptied': 'readings = 0'},
        pre_hook="{{ claim(ref('telemetry')) }}",
        indexes=[{'columns': ['minute', 'zone', 'kpi'], 'unique': true}],
    )
}}

-- depends_on: {{ ref('stg_redis__telemetry') }}
with

telemetry as (
    select * from {{ ref('telemetry') }}
),

{% if is_incremental() %}

versions as (
    select * from {{ ref('stg_redis__telemetry') }}
),

-- the minutes of every version, so that a reading whose counted version changed corrects its old minute too
touched as (
    select distinct
        buckets.minute,
        buckets.zone,
        buckets.kpi
    from {{ claimed('telemetry') }} as claimed
    cross join lateral (
        select distinct
            {{ minute_of('versions.ts') }} as minute,
            versions.zone,
            versions.kpi
        from versions
        where versions.event_id = claimed.event_id and versions.ts is not null
    ) as buckets
),

final as (
    select
        touched.minute,
        touched.zone,
        touched.kpi,
        summed.readings,
        summed.degraded,
        summed.min,
        summed.max,
        summed.mean
    from touched
    cross join lateral (
        select
            count(*) as readings,
            count(*) filter (where telemetry.is_degraded) as degraded,
            min(telemetry.value) as min,
            max(telemetry.value) as max,
            avg(telemetry.value order by telemetry.value) as mean
        from telemetry
        where
            {{ minute_of('telemetry.ts') }} = touched.minute
            and telemetry.zone = touched.zone
            and telemetry.kpi = touched.kpi
    ) as summed
)

{% else %}

final as (
    select
        {{ minute_of('ts') }} as minute,
        zone,
        kpi,
        count(*) as readings,
        count(*) filter (where is_degraded) as degraded,
        min(value) as min,
        max(value) as max,
        avg(value order by value) as mean
    from telemetry
    group by 1, 2, 3
)

{% endif %}

select * from final
{{ without_emptied() }}
