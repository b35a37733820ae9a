{#
    The schema of the logs and turns of a target: beside the target's own, so that analysts see models alone. `headrace
    init` makes `marts_log`; a developer's is made with the first build.
#}
{% macro log_schema(relation) -%}
    {{ return(headrace_dbt.short_name(relation.schema ~ '_log')) }}
{%- endmacro %}


{# The log of a model: old and new images of its changed rows, each under the number of the build that changed it. #}
{% macro log_of(relation) -%}
    {{ return(headrace_dbt.exactly(headrace_dbt.log_schema(relation)) ~ '.' ~ headrace_dbt.exactly(relation.identifier)) }}
{%- endmacro %}


{# The empty table that is locked by the build of a model. #}
{% macro turn_of(relation) -%}
    {{ return(headrace_dbt.exactly(headrace_dbt.log_schema(relation)) ~ '.' ~ headrace_dbt.exactly(headrace_dbt.short_name('_turn_' ~ relation.identifier))) }}
{%- endmacro %}


{# The rows of a dataset that reloads replaced. #}
{% macro replaced_of(relation) -%}
    {{ return(headrace_dbt.exactly(relation.schema) ~ '.' ~ headrace_dbt.exactly('_replaced_' ~ relation.identifier)) }}
{%- endmacro %}


{# A name of at most 63 bytes: Postgres cuts longer ones, and two could become one. #}
{% macro short_name(name) -%}
    {%- if name.encode('utf-8') | length <= 63 -%}
        {{ return(name) }}
    {%- endif -%}
    {{ return(name.encode('utf-8')[:54].decode('utf-8', 'ignore') ~ '_' ~ local_md5(name)[:8]) }}
{%- endmacro %}


{# Makes the log of a table, empty: again where the table's columns changed. #}
{% macro make_log(build) -%}
    {%- set relation = build.relation -%}
    {%- set log = headrace_dbt.log_of(relation) -%}
    {%- do headrace_dbt.run_sql(
        'drop table if exists ' ~ log ~ '; create table ' ~ log ~ ' as select 0::bigint as _headrace_build, true as _headrace_is_new, _row.* from '
        ~ relation.include(database=false) ~ ' as _row with no data; alter table ' ~ log ~ ' replica identity full; create index on ' ~ log ~ ' (_headrace_build)'
    ) -%}
    {%- do build.update({'floor': build.number, 'logged': 0}) -%}
{%- endmacro %}


{#
    Deletes what every reader has seen, and raises the floor with it: a reader that has not seen the floor builds its
    whole table. So does every reader after a log has grown beyond the cap: one of them may be absent for ever.
#}
{% macro trim_log(build) -%}
    {%- set readers = build.state.readers -%}
    {%- set floor = build.number if not readers.count else readers.seen | int -%}
    {%- if build.logged > var('log_rows_max', 1000000) -%}
        {%- set floor = build.number -%}
    {%- endif -%}
    {%- if floor > build.floor -%}
        {%- set trimmed = headrace_dbt.run_sql('delete from ' ~ headrace_dbt.log_of(build.relation) ~ ' where _headrace_build <= ' ~ floor) if build.logged else 0 -%}
        {%- do build.update({'floor': floor, 'logged': build.logged - trimmed}) -%}
    {%- endif -%}
{%- endmacro %}
