{{ config(unique_key='id', indexes=[{'columns': ['place']}, {'columns': ['person']}]) }}

select
    id,
    person,
    place,
    minutes
from {{ ref('raw_visits') }}
where {{ var('batch') }} between first_batch and last_batch
