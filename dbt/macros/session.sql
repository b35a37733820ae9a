{#
    dbt's own macros, preceded by the session parameters of headrace_dbt: roles, databases, PGOPTIONS and poolers have
    other defaults. The tests ...
#}
{% macro postgres__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) -%}
    {{ headrace_dbt.session_parameters(isolation=none) }}
    {{ default__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) }}
{%- endmacro %}


{# ... the drop of a relation ... #}
{% macro postgres__drop_relation(relation) -%}
    {%- call statement('drop_relation', auto_begin=false) -%}
        {{ headrace_dbt.session_parameters() }}
        {{ get_drop_sql(relation) }}
    {%- endcall -%}
{%- endmacro %}


{# ... and a developer's schema. #}
{% macro postgres__create_schema(relation) -%}
    {%- if relation.database -%}
        {{ adapter.verify_database(relation.database) }}
    {%- endif -%}
    {%- call statement('create_schema') -%}
        {{ headrace_dbt.session_parameters() }}
        create schema if not exists {{ relation.without_identifier().include(database=false) }}
    {%- endcall -%}
{%- endmacro %}
