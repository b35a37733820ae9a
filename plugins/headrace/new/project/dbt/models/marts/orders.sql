{{ config(unique_key='order_id', indexes=[{'columns': [minute_of('ordered_at')]}]) }}

select
    order_id,
    customer,
    amount,
    ordered_at
from {{ ref('stg_kafka__orders') }}
