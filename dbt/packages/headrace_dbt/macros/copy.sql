{#
    The schema of the datasets' tables. `headrace check --marts` builds from copies: the variable headrace_copy names the
    schema of the copies, of their batches and of their datasets' numbers.
#}
{% macro staging_schema() -%}
    {{ return(var('headrace_copy', 'staging')) }}
{%- endmacro %}


{# The table `batches` or `datasets` of the loader, or of the copies. #}
{% macro ledger_table(name) -%}
    {%- set copy = var('headrace_copy', none) -%}
    {{ return('headrace.' ~ name if copy is none else headrace_dbt.exactly(copy) ~ '.' ~ headrace_dbt.exactly('_' ~ name)) }}
{%- endmacro %}
