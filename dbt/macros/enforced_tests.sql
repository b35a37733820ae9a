{# dbt's data tests not_null, unique and accepted_values: of marts, constraints enforce them (headrace_dbt.enforced_or). #}


{% test not_null(model, column_name) -%}
    {{ headrace_dbt.enforced_or('not_null', model, column_name, default__test_not_null(model, column_name)) }}
{%- endtest %}


{% test unique(model, column_name) -%}
    {{ headrace_dbt.enforced_or('unique', model, column_name, default__test_unique(model, column_name)) }}
{%- endtest %}


{% test accepted_values(model, column_name, values, quote=true) -%}
    {{ headrace_dbt.enforced_or('accepted_values', model, column_name, default__test_accepted_values(model, column_name, values, quote)) }}
{%- endtest %}
