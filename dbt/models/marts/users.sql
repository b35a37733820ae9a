{{ config(unique_key='userid') }}

select
    userid,
    location
from {{ ref('stg_files__users') }}
