{# The macros of packages/headrace_dbt that models use, without its prefix. #}


{% macro current(dataset, key=none, wins=none, versions=none) -%}
    {{ headrace_dbt.current(dataset, key, wins, versions) }}
{%- endmacro %}


{% macro minute_of(column) -%}
    {{ headrace_dbt.minute_of(column) }}
{%- endmacro %}


{% macro hour_of(column) -%}
    {{ headrace_dbt.hour_of(column) }}
{%- endmacro %}


{% macro in_audits(model) -%}
    {{ headrace_dbt.in_audits(model) }}
{%- endmacro %}
