{# Makes the table from the SELECT. #}
{% macro create_table(build, sql) -%}
    {%- do headrace_dbt.drop_view(build.relation, build.state) -%}
    {%- set rows = headrace_dbt.run_sql('create table ' ~ build.relation.render() ~ ' as select * from (' ~ sql ~ '\n) as _q') -%}
    {%- do build.update({'rows': rows}) -%}
    {%- do headrace_dbt.finish_table(build) -%}
{%- endmacro %}


{# Before the whole table is compared: its columns as the SELECT has them, its indexes, its log. #}
{% macro prepare_table(build) -%}
    {%- do headrace_dbt.settle_columns(build) -%}
    {%- if build.is_redefined -%}
        {%- do headrace_dbt.finish_table(build) -%}
    {%- endif -%}
{%- endmacro %}


{# What belongs to the table: indexes, the trigger, the log, grants, descriptions. #}
{% macro finish_table(build) -%}
    {%- set relation = build.relation -%}
    {%- set table = relation.include(database=false) | string -%}
    {%- do headrace_dbt.run_sql('alter table ' ~ table ~ ' replica identity full; ' ~ headrace_dbt.index_sql(build)
        ~ 'create or replace trigger headrace_refuses_manual_changes before insert or update or delete or truncate on ' ~ table
        ~ ' for each statement execute function headrace.refuse_manual_change()') -%}
    {%- if not build.state.built or build.state.log_columns != build.state.columns -%}
        {%- do headrace_dbt.make_log(relation) -%}
        {%- do build.update({'floor': build.number, 'logged': 0}) -%}
    {%- endif -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {%- do persist_docs(relation, model) -%}
{%- endmacro %}


{# The statements that make the indexes of the config, and a unique one of the unique key, where they are missing. #}
{% macro index_sql(build) -%}
    {%- set relation = build.relation -%}
    {%- set statements = [] -%}
    {%- for index in headrace_dbt.indexes_of(build) -%}
        {%- set columns = index.columns | join(', ') -%}
        {%- set readable = modules.re.sub('[^a-z0-9]+', '_', columns | lower).strip('_') -%}
        {%- set name = headrace_dbt.short_name(relation.identifier ~ '_' ~ readable ~ ('_key' if index.unique else '_idx')) -%}
        {%- do statements.append('create ' ~ ('unique ' if index.unique else '') ~ 'index if not exists ' ~ headrace_dbt.exactly(name) ~ ' on '
            ~ relation.include(database=false) ~ ' using ' ~ (index.type or 'btree') ~ ' (' ~ columns ~ '); ') -%}
    {%- endfor -%}
    {{ return(statements | join) }}
{%- endmacro %}


{# The indexes of the config, and a unique one of the unique key where the config has none. #}
{% macro indexes_of(build) -%}
    {%- set indexes = [] -%}
    {%- set unique_keys = [] -%}
    {%- for index in config.get('indexes') or [] -%}
        {%- do indexes.append({'columns': index.columns, 'unique': index.get('unique', false), 'type': index.get('type')}) -%}
        {%- if index.get('unique') -%}
            {%- do unique_keys.append(headrace_dbt.names_of(index.columns) | sort) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if build.unique_key and build.unique_key | sort not in unique_keys -%}
        {%- do indexes.append({'columns': headrace_dbt.column_list(build.unique_key).split(', '), 'unique': true, 'type': none}) -%}
    {%- endif -%}
    {{ return(indexes) }}
{%- endmacro %}


{# Drops a view in the table's place: `dbt clone` makes one. Postgres refuses where others depend on it. #}
{% macro drop_view(relation, state) -%}
    {%- if state.relkind in ('v', 'm') -%}
        {%- do headrace_dbt.run_sql('drop ' ~ ('materialized ' if state.relkind == 'm' else '') ~ 'view ' ~ relation.include(database=false)) -%}
    {%- elif state.relkind and state.relkind != 'r' -%}
        {%- do headrace_dbt.refuse(relation, 'found something that is neither a table nor a view, expected a table; drop or rename it') -%}
    {%- endif -%}
{%- endmacro %}
