{{ config(unique_key=$unique_key) }}

select
    $columns
from {{ ref('$staged') }}
