{#
    A table that is kept equal to its SELECT by writing the difference. README.md says how; each step is one macro:

    1. locks and snapshot (begin_build), so that everything below reads one state of the database
    2. what is new (read_state, plan_build): nothing, the touched grains, or possibly everything
    3. the new rows (compute_*), in a temporary table
    4. the difference (write_difference), also into the log that downstream models read
    5. an audit of some grains (audit)
    6. what this model has seen (write_state), in the same transaction
#}
{% materialization maintained, adapter='postgres' %}

    {%- set target_relation = this.incorporate(type='table') -%}
    {#- one line more than the SELECT: dbt puts a comment of one line before each statement, so this file has the lines of errors -#}
    {%- do write('-- the SELECT, in the lines that errors name\n' ~ sql) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}

    {%- set upstreams = headrace_dbt.upstreams() -%}
    {%- do headrace_dbt.begin_build(upstreams) -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set build = headrace_dbt.plan_build(target_relation, upstreams, sql) -%}
    {%- do headrace_dbt.compute(build, sql) -%}
    {%- set rows = headrace_dbt.apply(build, sql) -%}
    {%- do headrace_dbt.audit(build, sql) -%}
    {%- do headrace_dbt.forget_state(build) if build.is_partial else headrace_dbt.write_state(build) -%}
    {%- do store_raw_result('main', message='MAINTAIN ' ~ rows, code='MAINTAIN', rows_affected=rows) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{# --empty and --sample read only part of the rows, so what they build is not what the model has seen. #}
{% macro is_partial_run() -%}
    {{ return(headrace_dbt.argument('empty') or headrace_dbt.argument('sample')) }}
{%- endmacro %}


{# An argument of dbt's command line; `flags` has few of them. #}
{% macro argument(name) -%}
    {{ return(invocation_args_dict.get(name) or invocation_args_dict.get(name | upper)) }}
{%- endmacro %}
