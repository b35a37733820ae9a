{#
    A table that is kept equal to its SELECT by writing the difference. README.md says how; each step is one macro:

    1. locks and snapshot (begin_build), so that everything below reads one state of the database
    2. what is new (read_state, plan_build): nothing, the touched grains, or possibly everything
    3. the new rows (compute_*), in a temporary table
    4. the difference (write_difference), also into the log that downstream models read
    5. what this model has seen (write_state), in the same transaction
#}
{% materialization maintained, adapter='postgres' %}

    {%- set target_relation = this.incorporate(type='table') -%}
    {%- do write(sql) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}

    {%- set upstreams = headrace_dbt.upstreams() -%}
    {%- do headrace_dbt.begin_build(upstreams) -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if headrace_dbt.is_partial_run() -%}
        {%- set rows = headrace_dbt.build_part(target_relation, sql) -%}
    {%- else -%}
        {%- set build = headrace_dbt.plan_build(target_relation, upstreams, sql) -%}
        {%- do headrace_dbt.compute(build, sql) -%}
        {%- set rows = headrace_dbt.apply(build, sql) -%}
        {%- do headrace_dbt.write_state(build) -%}
    {%- endif -%}
    {%- do store_raw_result('main', message='MAINTAIN ' ~ rows, code='MAINTAIN', rows_affected=rows) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{# --empty and --sample read only part of the rows, so what they build is not what the model has seen. #}
{% macro is_partial_run() -%}
    {{ return((flags.EMPTY | default(false)) or (flags.SAMPLE | default(none)) is not none) }}
{%- endmacro %}


{# A build with --empty or --sample: makes a table where there is none, otherwise only runs the SELECT. No state. #}
{% macro build_part(relation, sql) -%}
    {%- set state = headrace_dbt.read_state(relation, []) -%}
    {%- if state.relkind == 'r' -%}
        {{ return(headrace_dbt.run_sql('create temporary table _headrace_part on commit drop as select * from (' ~ sql ~ '\n) as _part') and 0) }}
    {%- endif -%}
    {%- do headrace_dbt.drop_view(relation, state) -%}
    {{ return(headrace_dbt.run_sql('create table ' ~ relation.render() ~ ' as select * from (' ~ sql ~ '\n) as _part')) }}
{%- endmacro %}
