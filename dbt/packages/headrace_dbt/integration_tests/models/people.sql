{{ config(unique_key='id') }}

select
    id,
    home
from {{ ref('raw_people') }}
where {{ var('batch') }} between first_batch and last_batch
