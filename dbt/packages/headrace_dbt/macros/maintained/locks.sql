{#
    Takes the locks, then the snapshot, of one build. The order is essential, and so is one string: LOCK takes no
    snapshot, everything else does.

    1. the model's own turn, an empty table beside its log: two builds of one model run one after the other. A lock of
       the log would conflict with autovacuum
    2. the upstreams and their logs: after the snapshot, one that another transaction swaps or truncates would read as
       0 rows, and waiting for a lock would end in a serialization failure
    3. REPEATABLE READ: what commits between two statements below does not exist for this build

    synchronous_commit is off: a crash of the server may lose the last builds; the next build repeats them. The
    connection check ends a backend whose client was killed; otherwise it would keep its locks until its statement ends.
    A server on Windows takes 0 alone.
#}
{% macro begin_build(upstreams) -%}
    {%- if target.get('autocommit') -%}
        {%- do headrace_dbt.refuse_autocommit() -%}
    {%- endif -%}
    {%- set locked = headrace_dbt.prepare(upstreams) -%}
    {%- call statement('begin_build') -%}
    commit;
    begin transaction isolation level repeatable read, read write;
    set local lock_timeout = 0;
    set local statement_timeout = 0;
    set local client_connection_check_interval = {{ headrace_dbt.literal(env_var('HEADRACE_DBT_CLIENT_CHECK', '5s')) }};
    lock table {{ headrace_dbt.turn_of(this) }} in share row exclusive mode;
    {%- if locked %}
    lock table {{ locked | join(', ') }} in access share mode;
    {%- endif %}
    {{ headrace_dbt.session_parameters(isolation=none) }}
    set local synchronous_commit = off;
    set local jit = off;
    select pg_catalog.set_config('headrace.building', {{ headrace_dbt.literal(this.schema ~ '.' ~ this.identifier) }}, true);
    {%- endcall -%}
{%- endmacro %}


{# Before the locks, in a transaction of its own: makes the turn's table where it is missing; returns what can be locked. #}
{% macro prepare(upstreams) -%}
    {%- set sql -%}
        {{ headrace_dbt.session_parameters() }}
        select json_build_object(
            'has_schema', to_regnamespace({{ headrace_dbt.literal(headrace_dbt.exactly(headrace_dbt.log_schema(this))) }}) is not null,
            'has_turn', to_regclass({{ headrace_dbt.literal(headrace_dbt.turn_of(this)) }}) is not null
            {%- for upstream in upstreams %},
            {{ headrace_dbt.literal(upstream.key) }}, json_build_object(
                'relkind', (select relkind from pg_class where oid = to_regclass({{ headrace_dbt.literal(upstream.relation.include(database=false)) }})),
                'has_log', to_regclass({{ headrace_dbt.literal(headrace_dbt.log_of(upstream.relation)) }}) is not null
            )
            {%- endfor %}
        )::text
    {%- endset -%}
    {%- set found = headrace_dbt.fetch_json(sql) -%}
    {%- if not found.has_turn -%}
        {%- do headrace_dbt.make_turn(found.has_schema) -%}
    {%- endif -%}
    {%- set locked = [] -%}
    {%- for upstream in upstreams -%}
        {%- set kind = found[upstream.key].relkind -%}
        {%- if not kind -%}
            {%- do headrace_dbt.refuse(this, 'found no ' ~ upstream.key ~ ', expected that it has been built; run dbt build --select +' ~ this.identifier) -%}
        {%- endif -%}
        {%- if kind in ('r', 'p', 'v') -%}
            {%- do locked.append(upstream.relation.include(database=false) | string) -%}
        {%- endif -%}
        {%- if upstream.kind == 'model' and found[upstream.key].has_log -%}
            {%- do locked.append(headrace_dbt.log_of(upstream.relation)) -%}
        {%- elif upstream.kind == 'dataset' -%}
            {%- do locked.append(headrace_dbt.replaced_of(upstream.relation)) -%}
            {%- for elements in upstream.elements -%}
                {%- do locked.append(elements.include(database=false) | string) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(locked) }}
{%- endmacro %}


{#
    The turn's table and the schema of logs, made by one transaction at a time. Roles that may not create schemas may not
    even do so `if not exists`.
#}
{% macro make_turn(has_schema) -%}
    {%- call statement('make_turn') -%}
        {{ headrace_dbt.lock_row('logs of ' ~ this.schema) }};
        {%- if not has_schema %}
        {#- CREATE SCHEMA asks the session's cache, which learns only at the lock of another table what committed meanwhile #}
        select from pg_catalog.pg_namespace limit 0;
        create schema if not exists {{ headrace_dbt.exactly(headrace_dbt.log_schema(this)) }};
        {%- endif %}
        create table if not exists {{ headrace_dbt.turn_of(this) }} ();
    {%- endcall -%}
{%- endmacro %}


{# Refuses a connection that would commit the rows without what the model has seen. #}
{% macro refuse_autocommit() -%}
    {%- do headrace_dbt.refuse(this, "found a connection with autocommit, expected one transaction for the rows and what the"
        ~ " model has seen; remove `autocommit` from the profile") -%}
{%- endmacro %}


{# Refuses a transaction in which a build could be wrong, or could run code of a role with fewer rights. #}
{% macro check_session(state) -%}
    {%- if state.foreign_object -%}
        {%- do exceptions.raise_compiler_error(
            this.schema ~ ': found ' ~ state.foreign_object ~ ', expected that this schema belongs to ' ~ state.user_name
            ~ ', who may do more: what the other role put into it would run with more rights than it has; nothing was'
            ~ ' changed; build as a login in headrace_dbt (HEADRACE_DBT_DSN)'
        ) -%}
    {%- endif -%}
    {%- if state.building != this.schema ~ '.' ~ this.identifier or state.isolation != 'repeatable read' -%}
        {%- do headrace_dbt.refuse_autocommit() -%}
    {%- endif -%}
{%- endmacro %}
