{{ config(grain='place', unique_key='place') }}

select
    place,
    count(*) as visits,
    sum(minutes) as minutes
from {{ ref('visits') }}
group by place
