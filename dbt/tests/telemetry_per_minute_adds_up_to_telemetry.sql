-- every reading is counted in exactly one minute, under its zone and KPI
with

counted as (
    select
        zone,
        kpi,
        sum(readings) as readings,
        sum(degraded) as degraded
    from {{ ref('telemetry_per_minute') }}
    group by 1, 2
),

kept as (
    select
        zone,
        kpi,
        count(*) as readings,
        count(*) filter (where is_degraded) as degraded
    from {{ ref('telemetry') }}
    group by 1, 2
),

final as (
    select
        coalesce(counted.zone, kept.zone) as zone,
        coalesce(counted.kpi, kept.kpi) as kpi,
        counted.readings as counted_readings,
        kept.readings,
        counted.degraded as counted_degraded,
        kept.degraded
    from counted
    full join kept on counted.zone = kept.zone and counted.kpi = kept.kpi
    where
        (counted.readings, counted.degraded) is distinct from (kept.readings, kept.degraded)
        and {{ claims_equal(ref('telemetry'), ref('telemetry_per_minute')) }}
)

select * from final
