{#
    Computes some grains again, or with `--vars 'headrace_audit: all'` the whole table, in the build's snapshot, and
    compares them with the table that the build made. A difference is a wrong grain or a change by hand.
#}
{% macro audit(build, sql) -%}
    {%- set is_whole = var('headrace_audit', '') == 'all' and not build.is_partial -%}
    {%- if is_whole or build.action == 'grains' -%}
        {%- set audited = build.copy() -%}
        {%- set drop = 'drop table if exists pg_temp._headrace_new, pg_temp._headrace_difference' -%}
        {%- if is_whole -%}
            {%- do headrace_dbt.run_sql(drop) -%}
            {%- do audited.update({'action': 'whole'}) -%}
            {%- do headrace_dbt.compute_whole(sql) -%}
        {%- else -%}
            {%- do headrace_dbt.compute_sample(audited, sql, drop) -%}
        {%- endif -%}
        {%- if audited.action != 'unaffected' -%}
            {%- do audited.update({'columns': build.state.columns | map(attribute='name') | list}) -%}
            {%- do headrace_dbt.compare_audited(audited) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{#
    The new rows of three random grains of the table, all from one random page; nothing where that would take long.
    `before` are statements that run first. The page's rows are named one by one: Postgres would read the whole table for a
    range of ctid that a subquery gives.
#}
{% macro compute_sample(build, sql, before) -%}
    {%- set grains = headrace_dbt.column_list(build.grains | map(attribute='name') | list) -%}
    {%- set table = build.relation.include(database=false) | string -%}
    {%- set patterns = headrace_dbt.fetch_json(
        before ~ '; truncate pg_temp._headrace_touched; insert into pg_temp._headrace_touched select distinct * from (select ' ~ grains ~ ' from ' ~ table
        ~ " where ctid = any (array(select format('(%s,%s)', page, line)::tid from (select floor(random() * pg_relation_size(" ~ headrace_dbt.literal(table)
        ~ ") / current_setting('block_size')::int)::bigint as page offset 0) as pages cross join generate_series(1, 300) as lines (line)))"
        ~ " order by random() limit 3) as sample; "
        ~ headrace_dbt.patterns_sql(build.grains)
    ) -%}
    {%- do build.update({'patterns': patterns, 'action': 'grains' if patterns else 'unaffected'}) -%}
    {%- for pattern in patterns -%}
        {%- set lateral = headrace_dbt.planned_lateral(build.grains, pattern, sql) -%}
        {%- if lateral.cost > 50000 -%}
            {%- do build.update({'action': 'unaffected'}) -%}
        {%- elif build.action == 'grains' -%}
            {%- do headrace_dbt.keep_new(lateral.sql, lateral.settings, loop.first) -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}


{# Where the audited rows differ: rolls back, remembers that the grain is not to be trusted, and raises the error. #}
{% macro compare_audited(build) -%}
    {%- if headrace_dbt.run_sql('create temporary table _headrace_difference on commit drop as ' ~ headrace_dbt.difference_sql(build)) -%}
        {%- set rows = headrace_dbt.fetch_json(
            "select json_agg(json_build_object('found', to_json(kept), 'expected', to_json(made)))::text"
            ~ " from (select * from pg_temp._headrace_difference limit 3) as _d"
            ~ " left join " ~ build.relation.include(database=false) ~ " as kept on kept.ctid = _d.old_at"
            ~ " left join pg_temp._headrace_new as made on made.ctid = _d.new_at"
        ) -%}
        {%- set model = headrace_dbt.literal(build.relation.schema) ~ ', ' ~ headrace_dbt.literal(build.relation.identifier) -%}
        {%- do headrace_dbt.run_sql(
            'rollback; begin; update headrace.model_states set is_distrusted = true where (schema, identifier) = (' ~ model ~ ');'
            ~ ' delete from headrace.model_upstreams where (schema, identifier) = (' ~ model ~ '); commit; begin'
        ) -%}
        {%- do headrace_dbt.refuse_audited(build, rows) -%}
    {%- endif -%}
{%- endmacro %}


{# The error of an audit: of some rows the grain, and what is in the table and what should be. #}
{% macro refuse_audited(build, rows) -%}
    {%- set named = (build.grains or [{'name': build.unique_key[0] if build.unique_key else build.columns[0]}]) | map(attribute='name') | list -%}
    {%- set found = [] -%}
    {%- for row in rows -%}
        {%- set grain, columns = [], [] -%}
        {%- for name in named -%}
            {%- do grain.append(name ~ '=' ~ (row.found or row.expected)[name]) -%}
        {%- endfor -%}
        {%- for name in build.columns if row.found and row.expected and row.found[name] != row.expected[name] -%}
            {%- do columns.append(name ~ ' is ' ~ row.found[name] ~ ', not ' ~ row.expected[name]) -%}
        {%- endfor -%}
        {%- do found.append(grain | join(', ') ~ ': ' ~ (
            columns | join(', ') if row.found and row.expected else 'a row that the SELECT does not give' if row.found else 'no row that the SELECT gives'
        )) -%}
    {%- endfor -%}
    {%- do headrace_dbt.refuse(build.relation, 'an audit found ' ~ found | join('; ') ~ ', expected what its SELECT says: rows of a grain depend on'
        ~ ' upstream rows that do not touch it; nothing was changed, and each build computes the whole table until the config is corrected;'
        ~ ' correct grain or touched, or remove grain') -%}
{%- endmacro %}
