-- no CTEs here: Postgres flattens no subquery that has some, and would scan the whole table for a few claimed keys
select
    userid,
    location,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    false as is_replaced
from {{ source('staging', 'users') }}
union all
select
    userid,
    location,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    true as is_replaced
from {{ source('staging', 'users_replaced') }}
