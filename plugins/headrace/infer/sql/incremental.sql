{{
    config(
        unique_key=$unique_key,
        meta={'emptied': '$emptied'},
        pre_hook="{{ claim('$name') }}",
        indexes=[{'columns': [$key_columns], 'unique': true}],
    )
}}

with

versions as (
    select * from {{ ref('$staged') }}
),

current_versions as (
    {{ current_version('versions', '$name'$key) }}
),

final as (
    select
        $columns
    from current_versions
)

select * from final
{{ without_emptied() }}
