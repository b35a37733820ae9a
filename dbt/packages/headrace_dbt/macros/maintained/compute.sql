{# Computes the new rows into pg_temp._headrace_new; nothing where the table is created from the SELECT. #}
{% macro compute(build, sql) -%}
    {%- if build.action == 'grains' -%}
        {%- do build.update({'patterns': headrace_dbt.collect_touched(build)}) -%}
        {%- do headrace_dbt.compute_grains(build, sql) -%}
    {%- endif -%}
    {%- if build.action in ('whole', 'try') -%}
        {%- do headrace_dbt.compute_whole(sql) -%}
    {%- endif -%}
{%- endmacro %}


{# All rows of the SELECT. #}
{% macro compute_whole(sql) -%}
    {%- do headrace_dbt.run_sql('create temporary table _headrace_new on commit drop as select * from (' ~ sql ~ '\n) as _q') -%}
{%- endmacro %}


{#
    The rows of the touched grains. Each combination of null and other columns that occurs among the grains has a static
    condition of its own: `is null` uses an index, `is not distinct from` does not.
#}
{% macro compute_grains(build, sql) -%}
    {%- if not build.patterns -%}
        {%- do build.update({'action': 'unaffected'}) -%}
    {%- endif -%}
    {%- for pattern in build.patterns if build.action == 'grains' -%}
        {%- set lateral = headrace_dbt.lateral_sql(build.grains, pattern, sql) -%}
        {%- set semi_join = headrace_dbt.semi_join_sql(build.grains, pattern, sql) -%}
        {%- set cost = headrace_dbt.cost_of(lateral) -%}
        {%- set semi_cost = headrace_dbt.cost_of(semi_join) -%}
        {%- if loop.first and pattern.rows > 100 and [cost, semi_cost] | min > headrace_dbt.cost_of('select * from (' ~ sql ~ '\n) as _q') * 0.5 -%}
            {%- do build.update({'action': 'whole'}) -%}
        {%- else -%}
            {%- do headrace_dbt.run_sql(
                ('create temporary table _headrace_new on commit drop as ' if loop.first else 'insert into pg_temp._headrace_new ')
                ~ (lateral if cost <= semi_cost else semi_join)
            ) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{#
    A query of the combinations of null columns among the touched grains, their patterns: a JSON list of {nulls, rows};
    nulls is a list of names.
#}
{% macro patterns_sql(grains) -%}
    {%- set nulls = [] -%}
    {%- for grain in grains -%}
        {%- do nulls.append("case when " ~ headrace_dbt.exactly(grain.name) ~ " is null then " ~ headrace_dbt.literal(grain.name) ~ " end") -%}
    {%- endfor -%}
    {{ return(
        "select coalesce(json_agg(json_build_object('nulls', nulls, 'rows', rows) order by nulls), '[]')::text from ("
        ~ "select array_remove(array[" ~ nulls | join(', ') ~ "], null) as nulls, count(*) as rows"
        ~ " from pg_temp._headrace_touched group by 1) as patterns"
    ) }}
{%- endmacro %}


{# The condition that a row is of a touched grain of a pattern. #}
{% macro is_touched(grains, pattern, row) -%}
    {%- set conditions = [] -%}
    {%- for grain in grains -%}
        {%- set column = headrace_dbt.exactly(grain.name) -%}
        {%- do conditions.append(row ~ '.' ~ column ~ (' is null' if grain.name in pattern.nulls else ' = _touched.' ~ column)) -%}
    {%- endfor -%}
    {{ return(conditions | join(' and ')) }}
{%- endmacro %}


{# The touched grains of a pattern, as a relation. #}
{% macro touched_of(grains, pattern) -%}
    {%- set conditions = [] -%}
    {%- for grain in grains -%}
        {%- do conditions.append(headrace_dbt.exactly(grain.name) ~ (' is null' if grain.name in pattern.nulls else ' is not null')) -%}
    {%- endfor -%}
    {{ return('(select * from pg_temp._headrace_touched where ' ~ conditions | join(' and ') ~ ')') }}
{%- endmacro %}


{#
    The SELECT for one touched grain after the other. offset 0 is essential: without it Postgres flattens the lateral
    join and computes the whole table; with it the condition reaches the tables' indexes. The SELECT begins in the first
    line, so that a line of an error is the line of the compiled file.
#}
{% macro lateral_sql(grains, pattern, sql) -%}
    {{ return(
        'select _rows.* from ' ~ headrace_dbt.touched_of(grains, pattern) ~ ' as _touched cross join lateral (select * from (' ~ sql
        ~ '\n) as _q where ' ~ headrace_dbt.is_touched(grains, pattern, '_q') ~ ' offset 0) as _rows'
    ) }}
{%- endmacro %}


{# The SELECT for all touched grains at once: for many grains, or where no index has the grain. #}
{% macro semi_join_sql(grains, pattern, sql) -%}
    {{ return(
        'select _q.* from (' ~ sql ~ '\n) as _q where exists (select from ' ~ headrace_dbt.touched_of(grains, pattern)
        ~ ' as _touched where ' ~ headrace_dbt.is_touched(grains, pattern, '_q') ~ ')'
    ) }}
{%- endmacro %}


{# What Postgres estimates that a query costs. #}
{% macro cost_of(sql) -%}
    {%- set line = headrace_dbt.fetch_values('explain ' ~ sql)[0] -%}
    {{ return(modules.re.search('cost=[0-9.]+[.][.]([0-9.]+)', line).group(1) | float) }}
{%- endmacro %}
