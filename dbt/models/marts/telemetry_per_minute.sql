{{
    config(
        grain={'minute': minute_of('ts'), 'zone': 'zone', 'kpi': 'kpi'},
        unique_key=['minute', 'zone', 'kpi'],
    )
}}

select
    {{ minute_of('ts') }} as minute,
    zone,
    kpi,
    count(*) as readings,
    count(*) filter (where is_degraded) as degraded,
    min(value) as min,
    max(value) as max,
    avg(value order by value) as mean
from {{ ref('telemetry') }}
group by 1, 2, 3
