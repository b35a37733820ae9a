{# Makes the table equal to the new rows and returns the number of rows that changed: a row with another value is one. #}
{% macro apply(build, sql) -%}
    {%- if build.action == 'create' -%}
        {%- do headrace_dbt.create_table(build, sql) -%}
    {%- elif build.action == 'whole' -%}
        {%- do headrace_dbt.prepare_table(build) -%}
        {%- do headrace_dbt.write_difference(build) -%}
        {%- if build.is_redefined -%}
            {%- do headrace_dbt.finish_table(build) -%}
        {%- endif -%}
    {%- elif build.action == 'grains' -%}
        {%- do headrace_dbt.settle_columns(build) -%}
        {%- do headrace_dbt.write_difference(build) -%}
    {%- endif -%}
    {{ return(build.rows) }}
{%- endmacro %}


{#
    Writes the rows that differ and logs both images under the build's number. Deletes run before inserts: an update
    fails on a second unique constraint where two rows swap places, although the end state is valid.
#}
{% macro write_difference(build) -%}
    {%- do headrace_dbt.check_duplicates(build, 'pg_temp._headrace_new') -%}
    {%- set table = build.relation.include(database=false) | string -%}
    {%- set columns = headrace_dbt.column_list(build.columns) -%}
    {%- set is_logged = build.state.readers.count > 0 -%}
    {%- set rows = headrace_dbt.run_sql('create temporary table _headrace_difference on commit drop as ' ~ headrace_dbt.difference_sql(build)) -%}
    {%- do build.update({'rows': rows}) -%}
    {%- if rows -%}
        {%- set deleted = headrace_dbt.run_sql(headrace_dbt.logged(build, is_logged, 'false', columns,
            'delete from ' ~ table ~ ' as _kept where _kept.ctid = any (array(select old_at from pg_temp._headrace_difference where old_at is not null))')) -%}
        {%- set inserted = headrace_dbt.run_sql(headrace_dbt.logged(build, is_logged, 'true', columns,
            'insert into ' ~ table ~ ' (' ~ columns ~ ') select ' ~ columns ~ ' from pg_temp._headrace_new as _new'
            ~ ' where _new.ctid = any (array(select new_at from pg_temp._headrace_difference where new_at is not null))')) -%}
        {%- do build.update({'logged': build.logged + (deleted + inserted if is_logged else 0)}) -%}
        {%- if not build.unique_key -%}
            {#- nothing says which row a changed one was: a deleted and an inserted row count as one that changed -#}
            {%- do build.update({'rows': [deleted, inserted] | max}) -%}
        {%- endif -%}
        {%- do headrace_dbt.trim_log(build) -%}
    {%- endif -%}
{%- endmacro %}


{# A statement that changes the table, and where the log has readers adds the changed rows to it. #}
{% macro logged(build, is_logged, is_new, columns, statement) -%}
    {{ return(statement if not is_logged else
        'with changed as (' ~ statement ~ ' returning ' ~ columns ~ ') insert into ' ~ headrace_dbt.log_of(build.relation)
        ~ ' (_headrace_build, _headrace_is_new, ' ~ columns ~ ') select ' ~ build.number ~ ', ' ~ is_new ~ ', ' ~ columns ~ ' from changed'
    ) }}
{%- endmacro %}


{#
    The rows that differ, as places (ctid) of old and new ones. With a unique key its rows are paired, otherwise equal
    rows are paired one by one. Whole rows are compared by their images: 1.0 is not 1.00, and json has no `=`.
#}
{% macro difference_sql(build) -%}
    {%- set key = build.unique_key -%}
    {%- set nullable = key | reject('in', build.state.not_null) | list -%}
    {%- set branches = [] -%}
    {%- if key -%}
        {%- set pairs = [] -%}
        {%- for name in key -%}
            {%- do pairs.append('_old.' ~ headrace_dbt.exactly(name) ~ ' = _new.' ~ headrace_dbt.exactly(name)) -%}
        {%- endfor -%}
        {%- do branches.append(headrace_dbt.differing(build, pairs | join(' and '), headrace_dbt.has_nulls(nullable, 'and', 'is not null'), '')) -%}
    {%- endif -%}
    {%- if not key or nullable -%}
        {%- set image = 'row(' ~ headrace_dbt.column_list(build.columns, '_row') ~ ')::text' -%}
        {%- do branches.append(headrace_dbt.differing(build, '_old._headrace_image = _new._headrace_image and _old._headrace_n = _new._headrace_n',
            headrace_dbt.has_nulls(nullable if key else [], 'or', 'is null'),
            image ~ ' as _headrace_image, row_number() over (partition by ' ~ image ~ ') as _headrace_n,')) -%}
    {%- endif -%}
    {{ return(branches | join('\nunion all\n')) }}
{%- endmacro %}


{# A condition on columns that may be null; true where there are none. #}
{% macro has_nulls(names, joiner, test) -%}
    {%- set conditions = [] -%}
    {%- for name in names -%}
        {%- do conditions.append('_row.' ~ headrace_dbt.exactly(name) ~ ' ' ~ test) -%}
    {%- endfor -%}
    {{ return('(' ~ conditions | join(' ' ~ joiner ~ ' ') ~ ')' if conditions else 'true') }}
{%- endmacro %}


{# The places of the old and new rows that are not paired with an equal row. #}
{% macro differing(build, pair, condition, more_columns) -%}
    {%- set old = [] -%}
    {%- set table = build.relation.include(database=false) | string -%}
    {%- for pattern in (build.patterns if build.action == 'grains' else [none]) -%}
        {%- do old.append('select _row.ctid as _headrace_at, ' ~ more_columns ~ ' _row.* from ' ~ table ~ ' as _row' ~ (
            '' if pattern is none else ' inner join ' ~ headrace_dbt.touched_of(build.grains, pattern) ~ ' as _touched on '
            ~ headrace_dbt.is_touched(build.grains, pattern, '_row')
        ) ~ ' where ' ~ condition) -%}
    {%- endfor -%}
    select _old._headrace_at as old_at, _new._headrace_at as new_at
    from ({{ old | join('\nunion all\n') }}) as _old
    full join (select _row.ctid as _headrace_at, {{ more_columns }} _row.* from pg_temp._headrace_new as _row where {{ condition }}) as _new
        on {{ pair }}
    where
        _old._headrace_at is null or _new._headrace_at is null
        or row({{ headrace_dbt.column_list(build.columns, '_old') }})::record
        *<> row({{ headrace_dbt.column_list(build.columns, '_new') }})::record
{%- endmacro %}


{# Refuses rows of which two have one unique key, and names some. #}
{% macro check_duplicates(build, rows) -%}
    {%- if build.unique_key -%}
        {%- set key = headrace_dbt.column_list(build.unique_key, '_new') -%}
        {%- set found = headrace_dbt.fetch_json(
            "select coalesce(json_agg(found), '[]')::text from (select format('%s (%s rows)', row(" ~ key ~ ")::text, count(*)) as found"
            ~ " from " ~ rows ~ " as _new where (" ~ key ~ ") is not null group by " ~ key ~ " having count(*) > 1 order by " ~ key ~ " limit 3) as duplicates"
        ) -%}
        {%- if found -%}
            {%- do headrace_dbt.refuse(build.relation, 'found several rows with one ' ~ build.unique_key | join(', ') ~ ': ' ~ found | join(', ')
                ~ ', expected one as unique_key says; nothing was changed; correct the SELECT or unique_key') -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
