{#
    Session parameters of a build's transaction, because roles, databases, PGOPTIONS and poolers have other defaults.
    plugins/headrace/postgres/session.py has the same for all other sessions. isolation is set where the SQL is the
    first of its transaction: it cannot be set after a query.

    transaction_timeout came with PostgreSQL 17. client_encoding is not set here: psycopg2 would keep using the old one.
    `headrace env` exports PGCLIENTENCODING.
#}
{% macro session_parameters(isolation='read committed') -%}
    {%- if isolation %}
    set transaction isolation level {{ isolation }}, read write;
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


{#
    Statements that lock a row of headrace.model_locks until the end of the transaction. Not an advisory lock: any login
    could hold that. If the row is new, the second transaction waits for the first one's insert.
#}
{% macro lock_row(name) -%}
    insert into headrace.model_locks (name) values ({{ headrace_dbt.literal(name) }}) on conflict do nothing;
    select from headrace.model_locks where name = {{ headrace_dbt.literal(name) }} for update
{%- endmacro %}
