-- no CTEs here: Postgres flattens no subquery that has some, and would scan the whole table for a few claimed keys
select
    event_id,
    device_id,
    zone,
    ts,
    kpi,
    value,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    false as is_replaced
from {{ source('staging', 'telemetry') }}
union all
select
    event_id,
    device_id,
    zone,
    ts,
    kpi,
    value,
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    true as is_replaced
from {{ source('staging', 'telemetry_replaced') }}
