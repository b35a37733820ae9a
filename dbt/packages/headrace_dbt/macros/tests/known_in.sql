{# relationships, for the rows that the model's last build changed; in an audit for all rows. #}
{% test known_in(model, column_name, to, field) %}

{%- set column, field = headrace_dbt.exactly(headrace_dbt.unquoted(column_name)), headrace_dbt.exactly(headrace_dbt.unquoted(field)) %}

with

children as (
    {%- if headrace_dbt.checks_all_rows() %}
    select {{ column }} from {{ model }}
    {%- else %}
    select {{ column }} from {{ headrace_dbt.last_changes(model) }} as changes
    where _headrace_is_new
    {%- endif %}
)

select children.{{ column }}
from children
where
    children.{{ column }} is not null
    and not exists (select from {{ to }} as parents where parents.{{ field }} = children.{{ column }})
    and {{ headrace_dbt.has_seen_all(model) }}

{% endtest %}
