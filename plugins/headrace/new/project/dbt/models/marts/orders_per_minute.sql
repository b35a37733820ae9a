{{ config(grain={'minute': minute_of('ordered_at')}, unique_key='minute') }}

select
    {{ minute_of('ordered_at') }} as minute,
    count(*) as orders,
    sum(amount) as amount
from {{ ref('orders') }}
group by 1
