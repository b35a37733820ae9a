{{
    config(
        unique_key=['_generation', '_partition', '_offset'],
        meta={'emptied': 'tpep_pickup_datetime is null'},
        pre_hook="{{ claim('rides') }}",
        indexes=[
            {'columns': ['_generation', '_partition', '_offset'], 'unique': true},
            {'columns': [hour_of('tpep_pickup_datetime')]},
        ],
    )
}}

with

versions as (
    select * from {{ ref('stg_kafka__rides') }}
),

current_versions as (
    {{ current_version('versions', 'rides') }}
),

final as (
    select
        pulocationid,
        dolocationid,
        trip_distance,
        total_amount,
        tpep_pickup_datetime,
        _generation,
        _partition,
        _offset
    from current_versions
)

select * from final
{{ without_emptied() }}
