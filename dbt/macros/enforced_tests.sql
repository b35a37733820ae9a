{# dbt's data tests, which read nothing where a maintained table has the constraint. #}
{% test not_null(model, column_name) -%}
    {{ headrace_dbt.unless_enforced(default__test_not_null(model, column_name), model, column_name, 'not_null') }}
{%- endtest %}


{% test unique(model, column_name) -%}
    {{ headrace_dbt.unless_enforced(default__test_unique(model, column_name), model, column_name, 'unique') }}
{%- endtest %}


{% test accepted_values(model, column_name, values, quote=true) -%}
    {%- set kind = none if model is string else headrace_dbt.check_name(
        model.identifier, headrace_dbt.unquoted(column_name), headrace_dbt.values_sql(values, quote)
    ) -%}
    {{ headrace_dbt.unless_enforced(default__test_accepted_values(model, column_name, values, quote), model, column_name, kind) }}
{%- endtest %}
