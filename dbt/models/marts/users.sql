{{ config(materialized='maintained', unique_key='userid') }}

select
    userid,
    location
from {{ current('users', key='userid') }}
