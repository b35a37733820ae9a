{# relationships, but only while both models have built the same batches: in between, either may be a batch ahead. #}
{% test known_where_claims_are_equal(model, column_name, to, field) %}

{%- set column_name, field = quoted(column_name), quoted(field) %}

with

children as (
    select {{ column_name }} from {{ model }}
),

parents as (
    select {{ field }} from {{ to }}
),

final as (
    select children.{{ column_name }}
    from children
    left join parents on children.{{ column_name }} = parents.{{ field }}
    where
        children.{{ column_name }} is not null
        and parents.{{ field }} is null
        and {{ claims_equal(to, model) }}
)

select * from final

{% endtest %}
