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
        {%- set lateral = headrace_dbt.planned_lateral(build.grains, pattern, sql) -%}
        {%- set semi_join = headrace_dbt.semi_join_sql(build.grains, pattern, sql) -%}
        {%- set semi_cost = headrace_dbt.cost_of(semi_join) if lateral.cost else 0 -%}
        {%- if lateral.cost and loop.first and pattern.rows > 100 and [lateral.cost, semi_cost] | min > headrace_dbt.cost_of('select * from (' ~ sql ~ '\n) as _q') * 0.5 -%}
            {%- do build.update({'action': 'whole'}) -%}
        {%- else -%}
            {%- do headrace_dbt.keep_new(semi_join if semi_cost < lateral.cost else lateral.sql, lateral.settings if lateral.cost <= semi_cost else [], loop.first) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{# Writes the rows of a query into pg_temp._headrace_new, with these parameters off. Its first line stays the first one. #}
{% macro keep_new(sql, settings, is_first) -%}
    {%- set before, after = [], [] -%}
    {%- for name in settings -%}
        {%- do before.append('set local ' ~ name ~ ' = off; ') -%}
        {%- do after.append('; set local ' ~ name ~ ' = default') -%}
    {%- endfor -%}
    {%- do headrace_dbt.run_sql(before | join
        ~ ('create temporary table _headrace_new on commit drop as ' if is_first else 'insert into pg_temp._headrace_new ') ~ sql ~ after | join) -%}
{%- endmacro %}


{#
    The SELECT for one touched grain after the other, as {sql, cost, settings}; settings are parameters to turn off. The
    cost is 0 where only the first rows of a grain are read, in the order of an index: a rank with a highest one
    (where rank <= 20). Postgres's estimate, by which it would rather sort, is of all rows of the grain.
#}
{% macro planned_lateral(grains, pattern, sql) -%}
    {%- set lateral = headrace_dbt.lateral_sql(grains, pattern, sql) -%}
    {%- set plan = headrace_dbt.plan_of(lateral) -%}
    {%- if headrace_dbt.ends_at_a_rank(plan) -%}
        {%- set ordered = headrace_dbt.plan_of(lateral, 'set local enable_sort = off; set local enable_bitmapscan = off; ') -%}
        {%- do headrace_dbt.run_sql('set local enable_sort = default; set local enable_bitmapscan = default') -%}
        {%- if headrace_dbt.ends_at_a_rank(ordered, in_index_order=true) -%}
            {{ return({'sql': lateral, 'cost': 0, 'settings': ['enable_sort', 'enable_bitmapscan']}) }}
        {%- endif -%}
    {%- endif -%}
    {{ return({'sql': lateral, 'cost': plan['Total Cost'], 'settings': []}) }}
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
    {{ return(headrace_dbt.plan_of(sql)['Total Cost']) }}
{%- endmacro %}


{# Postgres's plan of a query; `before` are statements that run first. #}
{% macro plan_of(sql, before='') -%}
    {{ return(headrace_dbt.fetch_json(before ~ 'explain (format json) ' ~ sql)[0].Plan) }}
{%- endmacro %}


{# Whether somewhere in a plan a window ends at its highest rank (and reads an index, not the result of a sort). #}
{% macro ends_at_a_rank(plan, in_index_order=false) -%}
    {%- if plan['Node Type'] == 'WindowAgg' and 'Run Condition' in plan and (not in_index_order or headrace_dbt.is_in_index_order(plan.Plans[0])) -%}
        {{ return(true) }}
    {%- endif -%}
    {%- for part in plan.get('Plans', []) if headrace_dbt.ends_at_a_rank(part, in_index_order) -%}
        {{ return(true) }}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}


{#
    Whether a plan reads the rows of a condition from an index, one by one as they are asked for. Without a condition it
    would read other grains' rows, too, as far as the last one that is asked for.
#}
{% macro is_in_index_order(plan) -%}
    {%- if plan['Node Type'] in ('Subquery Scan', 'WindowAgg', 'Result') and 'Plans' in plan -%}
        {{ return(headrace_dbt.is_in_index_order(plan.Plans[0])) }}
    {%- endif -%}
    {{ return(plan['Node Type'] in ('Index Scan', 'Index Only Scan') and 'Index Cond' in plan) }}
{%- endmacro %}
