{#
    dbt's data tests not_null, unique and accepted_values read the whole table. Those of a maintained model are
    constraints of its table (constraints.sql), so no row is written that they would find: here they read the catalog,
    and fail where the constraint is missing. dbt finds these in the root project: macros of the project with dbt's names
    (test_not_null, ...) call them.
#}


{# dbt's own test, or for a maintained model whether its table has the constraint. #}
{% macro enforced_or(test_name, model, column_name, own_test) -%}
    {%- if model is string or config.get('where') or (config.get('severity') or 'error') | lower != 'error' or not headrace_dbt.is_maintained(model) -%}
        {{ own_test }}
    {%- elif test_name == 'not_null' -%}
        {{ headrace_dbt.missing_constraint(model, column_name, 'attribute.attnotnull') }}
    {%- elif test_name == 'unique' -%}
        {{ headrace_dbt.missing_constraint(model, column_name,
            'exists (select from pg_index as i where i.indrelid = attribute.attrelid and i.indisunique and i.indpred is null'
            ~ ' and i.indnkeyatts = 1 and i.indkey[0] = attribute.attnum)') }}
    {%- else -%}
        {{ headrace_dbt.missing_constraint(model, column_name,
            "exists (select from pg_constraint as c where c.conrelid = attribute.attrelid and c.contype = 'c' and c.conkey = array[attribute.attnum])") }}
    {%- endif -%}
{%- endmacro %}


{# A query that returns the column unless its table has the constraint. #}
{% macro missing_constraint(model, column_name, condition) -%}
    select attribute.attname as column_without_the_constraint_of_this_test
    from pg_attribute as attribute
    where
        attribute.attrelid = {{ headrace_dbt.literal(model.include(database=false)) }}::regclass
        and attribute.attname = {{ headrace_dbt.literal(headrace_dbt.unquoted(column_name)) }}
        and not {{ condition }}
{%- endmacro %}


{# Whether a relation is that of a maintained model of this project. #}
{% macro is_maintained(relation) -%}
    {%- for node in (graph.get('nodes') or {}).values() if node.resource_type == 'model' and node.config.materialized == 'maintained' -%}
        {%- if node.schema == relation.schema and node.alias == relation.identifier -%}
            {{ return(true) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}
