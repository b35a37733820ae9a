{{ config(grain={'minute': minute_of('jobcreatedate')}, unique_key='minute') }}

select
    {{ minute_of('jobcreatedate') }} as minute,
    count(*) as jobs,
    coalesce(sum(revenue), 0) as revenue
from {{ ref('jobs') }}
where jobcreatedate is not null
group by 1
