{# relationships, but only while both models have built the same batches: in between, either may be a batch ahead. #}
{% test known_where_claims_are_equal(model, column_name, to, field) %}

select children.{{ column_name }}
from {{ model }} as children
left join {{ to }} as parents on children.{{ column_name }} = parents.{{ field }}
where
    children.{{ column_name }} is not null
    and parents.{{ field }} is null
    {#- the model has further upstreams: their datasets do not matter here #}
    and {{ claims_equal(to, model) }}

{% endtest %}
