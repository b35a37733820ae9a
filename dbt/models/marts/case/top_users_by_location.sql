{{ config(grain='location', unique_key=['location', 'rank'], indexes=[{'columns': ['userid']}]) }}

with

ranked as (
    select
        location,
        row_number() over (partition by location order by revenue desc, userid) as rank,
        userid,
        revenue
    from {{ ref('visitor_revenues') }}
)

select
    location,
    cast(rank as integer) as rank,
    userid,
    revenue
from ranked
where rank <= {{ ranks_held() }}
