{#
    Compares the columns of the new rows with the table's. Where they differ a build from scratch alters the table in
    place, so that grants and other users' views stay; any other build refuses.
#}
{% macro settle_columns(build) -%}
    {%- set made = headrace_dbt.fetch_json('select ' ~ headrace_dbt.columns_as_json("'pg_temp._headrace_new'::regclass") ~ '::text') -%}
    {%- do build.update({'columns': made | map(attribute='name') | list}) -%}
    {%- set differing = headrace_dbt.differing_columns(build.state.columns, made) -%}
    {%- if differing and (should_full_refresh() or not build.state.built) -%}
        {%- do headrace_dbt.alter_columns(build, differing) -%}
    {%- elif differing -%}
        {%- set column = differing[0] -%}
        {%- do exceptions.raise_compiler_error(
            build.relation.schema ~ '.' ~ build.relation.identifier ~ '.' ~ column.name ~ ': found ' ~ (column.kept or 'no column')
            ~ ', expected ' ~ (column.made or 'no column') ~ ' as the model has it; nothing was changed; alter the table, which keeps'
            ~ ' grants and views: dbt run --full-refresh --select ' ~ build.relation.identifier
        ) -%}
    {%- endif -%}
{%- endmacro %}


{# The columns that two tables do not have in common: a list of {name, kept, made}, of which one type may be none. #}
{% macro differing_columns(kept_columns, made_columns) -%}
    {%- set kept, made, differing = {}, {}, [] -%}
    {%- for column in kept_columns -%}
        {%- do kept.update({column.name: column.type}) -%}
    {%- endfor -%}
    {%- for column in made_columns -%}
        {%- do made.update({column.name: column.type}) -%}
        {%- if kept.get(column.name) != column.type -%}
            {%- do differing.append({'name': column.name, 'kept': kept.get(column.name), 'made': column.type}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for name, type in kept.items() if name not in made -%}
        {%- do differing.append({'name': name, 'kept': type, 'made': none}) -%}
    {%- endfor -%}
    {{ return(differing) }}
{%- endmacro %}


{# Adds, drops and changes columns. A changed one is emptied: the difference fills it, and no old value can fail to convert. #}
{% macro alter_columns(build, differing) -%}
    {%- set relation = build.relation -%}
    {%- do headrace_dbt.refuse_dependents(relation, differing) -%}
    {%- set actions = [] -%}
    {%- for column in differing -%}
        {%- set name = headrace_dbt.exactly(column.name) -%}
        {%- if not column.kept -%}
            {%- do actions.append('add column ' ~ name ~ ' ' ~ column.made) -%}
        {%- elif not column.made -%}
            {%- do actions.append('drop column ' ~ name) -%}
        {%- else -%}
            {%- do actions.append('alter column ' ~ name ~ ' drop not null') -%}
            {%- do actions.append('alter column ' ~ name ~ ' type ' ~ column.made ~ ' using null') -%}
        {%- endif -%}
    {%- endfor -%}
    {#- readers that came before are waited for, and those that come later wait: hence a lock timeout -#}
    {%- do headrace_dbt.run_sql("set local lock_timeout = '15s'; alter table " ~ relation.include(database=false) ~ ' ' ~ actions | join(', ')) -%}
    {%- do log(relation.schema ~ '.' ~ relation.identifier ~ ': altered in place: ' ~ actions | join(', '), info=true) -%}
    {%- do headrace_dbt.read_columns(build) -%}
    {%- do build.state.update({'not_null': build.state.not_null | reject('in', differing | map(attribute='name') | list) | list}) -%}
{%- endmacro %}


{# Reads the columns of the table again, after it was made or altered. #}
{% macro read_columns(build) -%}
    {%- do build.state.update({'columns': headrace_dbt.fetch_json(
        'select ' ~ headrace_dbt.columns_as_json(headrace_dbt.literal(build.relation.include(database=false)) ~ '::regclass') ~ '::text'
    )}) -%}
{%- endmacro %}


{# Refuses to change columns that views, functions or other objects of others need, and names these. #}
{% macro refuse_dependents(relation, differing) -%}
    {%- set names = [] -%}
    {%- for column in differing if column.kept -%}
        {%- do names.append(headrace_dbt.literal(column.name)) -%}
    {%- endfor -%}
    {%- set found = headrace_dbt.fetch_json(
        "select coalesce(json_agg(distinct case when v.oid is null then pg_describe_object(d.classid, d.objid, d.objsubid) else"
        ~ " format('%s %s of %s', case v.relkind when 'm' then 'materialized view' when 'v' then 'view' else 'rule on' end,"
        ~ " format('%I.%I', n.nspname, v.relname), pg_get_userbyid(v.relowner)) end), '[]')::text"
        ~ " from pg_attribute as a"
        ~ " inner join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum"
        ~ " left join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid"
        ~ " left join pg_class as v on r.ev_class = v.oid"
        ~ " left join pg_namespace as n on v.relnamespace = n.oid"
        ~ " where d.deptype = 'n' and a.attrelid = " ~ headrace_dbt.literal(relation.include(database=false)) ~ "::regclass"
        ~ " and a.attname = any (array[" ~ names | join(', ') ~ "]::name[])"
    ) -%}
    {%- if found -%}
        {%- do headrace_dbt.refuse(relation, 'found ' ~ found | join(', ') ~ ', expected nothing that needs the columns '
            ~ differing | selectattr('kept') | map(attribute='name') | join(', ') ~ ', which the model drops or changes; nothing was changed;'
            ~ ' drop it, and create it again after the build') -%}
    {%- endif -%}
{%- endmacro %}
