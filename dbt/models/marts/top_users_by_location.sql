{{
    config(
        materialized='maintained',
        grain='location',
        unique_key=['location', 'rank'],
        indexes=[{'columns': ['userid']}],
    )
}}

select
    location,
    rank,
    userid,
    revenue
from (
    select
        location,
        userid,
        revenue,
        cast(row_number() over (partition by location order by revenue desc, userid) as integer) as rank
    from {{ ref('visitor_revenues') }}
) as ranked
where rank <= {{ ranks_held() }}
