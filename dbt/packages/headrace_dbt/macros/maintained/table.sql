{# Makes the table from the SELECT. #}
{% macro create_table(build, sql) -%}
    {%- set relation = build.relation -%}
    {%- do headrace_dbt.drop_view(relation, build.state) -%}
    {%- set rows = headrace_dbt.run_sql('create table ' ~ relation.render() ~ ' as select * from (' ~ sql ~ '\n) as _q') -%}
    {%- do headrace_dbt.read_columns(build) -%}
    {%- do build.update({'rows': rows, 'columns': build.state.columns | map(attribute='name') | list}) -%}
    {%- do headrace_dbt.check_grain_columns(build, build.columns) -%}
    {%- do headrace_dbt.make_indexes(build) -%}
    {%- do headrace_dbt.make_log(build) -%}
    {%- do headrace_dbt.finish_table(build) -%}
{%- endmacro %}


{# Before the difference is written: the columns as the SELECT has them, and no index or constraint of another config. #}
{% macro prepare_table(build) -%}
    {%- do headrace_dbt.settle_columns(build) -%}
    {%- if build.is_redefined -%}
        {%- do headrace_dbt.check_grain_columns(build, build.columns) -%}
        {%- set names = headrace_dbt.indexes_of(build) | map(attribute='name') | list -%}
        {%- set former = build.state.indexes | reject('in', names) | list -%}
        {%- set drops = headrace_dbt.former_constraints_sql(build)
            ~ ('drop index ' ~ headrace_dbt.column_list(former, headrace_dbt.exactly(build.relation.schema)) if former else '') -%}
        {%- do headrace_dbt.run_sql(drops) if drops -%}
        {%- if not build.state.built or build.state.log_columns != build.state.columns -%}
            {%- do headrace_dbt.make_log(build) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{# After the rows are right: indexes, constraints, the trigger, grants, descriptions. #}
{% macro finish_table(build) -%}
    {%- set relation = build.relation -%}
    {%- set table = relation.include(database=false) | string -%}
    {#- a publication for all tables would refuse every update and delete of a table without a primary key -#}
    {%- do headrace_dbt.run_sql('alter table ' ~ table ~ ' replica identity full; ' ~ headrace_dbt.index_sql(build) ~ headrace_dbt.constraints_sql(build)
        ~ 'create or replace trigger headrace_refuses_manual_changes before insert or update or delete or truncate on ' ~ table
        ~ ' for each statement execute function headrace.refuse_manual_change()') -%}
    {%- do apply_grants(relation, config.get('grants'), should_revoke=true) -%}
    {%- do persist_docs(relation, model) -%}
{%- endmacro %}


{#
    Makes the indexes of a new table. The unique ones find duplicates; only where they do does a query name them, which
    groups the whole table.
#}
{% macro make_indexes(build) -%}
    {%- do headrace_dbt.run_sql(
        "select set_config('headrace.duplicates', '', true); do $headrace$ begin " ~ headrace_dbt.index_sql(build)
        ~ "exception when unique_violation then perform set_config('headrace.duplicates', 'found', true); end $headrace$"
    ) -%}
    {%- if headrace_dbt.fetch_values("select current_setting('headrace.duplicates')")[0] -%}
        {%- do headrace_dbt.check_duplicates(build, build.relation.include(database=false) | string) -%}
    {%- endif -%}
{%- endmacro %}


{# The statements that make the indexes of the config, where they are missing. #}
{% macro index_sql(build) -%}
    {%- set statements = [] -%}
    {%- for index in headrace_dbt.indexes_of(build) -%}
        {%- do statements.append('create ' ~ ('unique ' if index.unique else '') ~ 'index if not exists ' ~ headrace_dbt.exactly(index.name) ~ ' on '
            ~ build.relation.include(database=false) ~ ' using ' ~ (index.type or 'btree') ~ ' (' ~ index.columns | join(', ') ~ '); comment on index '
            ~ headrace_dbt.exactly(build.relation.schema) ~ '.' ~ headrace_dbt.exactly(index.name) ~ " is 'of the config'; ") -%}
    {%- endfor -%}
    {{ return(statements | join) }}
{%- endmacro %}


{# The name of an index: the table and the columns, so that a plan or an error can be read. #}
{% macro index_name(relation, columns, is_unique) -%}
    {%- set text = columns | join(', ') -%}
    {%- set readable = modules.re.sub('[^a-z0-9]+', '_', text | lower).strip('_') -%}
    {%- set is_plain = modules.re.fullmatch('[a-z0-9_", ]+', text) -%}
    {{ return(headrace_dbt.short_name(
        relation.identifier ~ '_' ~ readable ~ ('' if is_plain else '_' ~ local_md5(text)[:6]) ~ ('_key' if is_unique else '_idx')
    )) }}
{%- endmacro %}


{#
    The indexes of the config, and unique ones of the unique key and of columns with the data test unique, where the
    config has none: a list of {name, columns, unique, type}.
#}
{% macro indexes_of(build) -%}
    {%- set indexes, unique_keys = [], [] -%}
    {%- for index in config.get('indexes') or [] -%}
        {%- do indexes.append({'columns': index.columns, 'unique': index.get('unique', false), 'type': index.get('type')}) -%}
        {%- if index.get('unique') -%}
            {%- do unique_keys.append(headrace_dbt.names_of(index.columns) | sort) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set keys = [build.unique_key] if build.unique_key else [] -%}
    {%- for column in build.tests.unique -%}
        {%- do keys.append([column]) -%}
    {%- endfor -%}
    {%- for key in keys if key | sort not in unique_keys -%}
        {%- do unique_keys.append(key | sort) -%}
        {%- do indexes.append({'columns': headrace_dbt.quoted_names(key), 'unique': true, 'type': none}) -%}
    {%- endfor -%}
    {%- for index in indexes -%}
        {%- do index.update({'name': headrace_dbt.index_name(build.relation, index.columns, index.unique)}) -%}
    {%- endfor -%}
    {{ return(indexes) }}
{%- endmacro %}


{# Names as SQL, each quoted. #}
{% macro quoted_names(names) -%}
    {%- set quoted = [] -%}
    {%- for name in names -%}
        {%- do quoted.append(headrace_dbt.exactly(name)) -%}
    {%- endfor -%}
    {{ return(quoted) }}
{%- endmacro %}


{# Drops a view in the table's place: `dbt clone` makes one. Postgres refuses where others depend on it. #}
{% macro drop_view(relation, state) -%}
    {%- if state.relkind in ('v', 'm') -%}
        {%- do headrace_dbt.run_sql('drop ' ~ ('materialized ' if state.relkind == 'm' else '') ~ 'view ' ~ relation.include(database=false)) -%}
    {%- elif state.relkind and state.relkind != 'r' -%}
        {%- do headrace_dbt.refuse(relation, 'found something that is neither a table nor a view, expected a table; drop or rename it') -%}
    {%- endif -%}
{%- endmacro %}
