{{ config(materialized='maintained', unique_key=$unique_key) }}

select
    $columns
from {{ current('$name'$key) }}
