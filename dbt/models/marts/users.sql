{{
    config(
        unique_key='userid',
        meta={'emptied': 'location is null'},
        pre_hook="{{ claim('users') }}",
        indexes=[{'columns': ['userid'], 'unique': true}],
    )
}}

with

versions as (
    select * from {{ ref('stg_files__users') }}
),

current_versions as (
    {{ current_version('versions', 'users', key='userid') }}
),

final as (
    select
        userid,
        location
    from current_versions
)

select * from final
{{ without_emptied() }}
