{#
    Session parameters of a build's transaction, because roles, databases, PGOPTIONS and poolers have other defaults.
    The SQL precedes the transaction's first statement in the same string: the isolation level cannot be set after a
    query (is_first=false leaves it out). plugins/headrace/postgres/session.py has the same for all other sessions.

    transaction_timeout came with PostgreSQL 17. client_encoding is not set here: psycopg2
    would keep using the old one. `headrace env` exports PGCLIENTENCODING.
#}
{% macro session_parameters(is_first=true) -%}
    {%- if is_first %}
    set transaction isolation level read committed, read write;
    {%- endif %}
    set local standard_conforming_strings = on;
    set local datestyle = iso, mdy;
    set local intervalstyle = postgres;
    set local timezone = 'UTC';
    set local extra_float_digits = 1;
    set local bytea_output = hex;
    set local array_nulls = on;
    set local transform_null_equals = off;
    {%- if target.get('search_path') %}
    set local search_path = {{ target.get('search_path') }};
    {%- else %}
    select pg_catalog.set_config('search_path', headrace.dbt_search_path(), true);
    {%- endif %}
    set local row_security = off;
    set local statement_timeout = 0;
    set local lock_timeout = 0;
    set local idle_in_transaction_session_timeout = 0;
    select pg_catalog.set_config('transaction_timeout', '0', true)
    where pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 170000;
{%- endmacro %}


{# dbt's own macros, preceded by the parameters: tests ... #}
{% macro postgres__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) -%}
    {{ session_parameters(is_first=false) }}
    {{ default__get_test_sql(main_sql, fail_calc, warn_if, error_if, limit) }}
{%- endmacro %}


{# ... the drop of the replaced table after a full refresh ... #}
{% macro postgres__drop_relation(relation) -%}
    {%- call statement('drop_relation', auto_begin=false) -%}
        {{ session_parameters() }}
        {{ get_drop_sql(relation) }}
    {%- endcall -%}
{%- endmacro %}


{# ... and a developer's schema. #}
{% macro postgres__create_schema(relation) -%}
    {%- if relation.database -%}
        {{ adapter.verify_database(relation.database) }}
    {%- endif -%}
    {%- call statement('create_schema') -%}
        {{ session_parameters() }}
        create schema if not exists {{ relation.without_identifier().include(database=false) }}
    {%- endcall -%}
{%- endmacro %}
