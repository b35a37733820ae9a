{#
    The model holds exactly the keys that a staged version is left of, while it has built every batch. `versions` is
    the stg_ model, or SQL like it; key and wins are those that the model gives current_version.
#}
{% test holds_what_is_staged(model, dataset, versions, key=none, wins='newest') %}

{%- set columns = columns_of(key) %}

with

versions as (
    select * from {{ versions }}
),

staged as (
    {{ current_version('versions', dataset, key=key, wins=wins) }}
),

held as (
    select * from {{ model }}
),

final as (
    select
        {{ columns | join(', ') }},
        staged.{{ columns[-1] }} is not null as is_staged,
        held.{{ columns[-1] }} is not null as is_held
    from staged
    full join held using ({{ columns | join(', ') }})
    where
        (staged.{{ columns[-1] }} is null or held.{{ columns[-1] }} is null)
        and {{ has_built_all(model, dataset) }}
)

select * from final

{% endtest %}
