{# The pre_hook of functions: two builds that replace one at the same time would fail (tuple concurrently updated). #}
{% macro take_turns() -%}
    {{ headrace_dbt.session_parameters() }}
    {{ headrace_dbt.lock_row('functions of ' ~ this.schema) }}
{%- endmacro %}


{#
    Drops a function whose result columns differ from the model's: `create or replace` cannot change them (cannot change
    return type of existing function). A pre_hook of functions, in the transaction that creates the function again.
#}
{% macro drop_function_of_other_result() -%}
    {%- set arguments = model.arguments | map(attribute='data_type') | join(', ') -%}
    do $hook$
    declare
        former regprocedure := to_regprocedure({{ headrace_dbt.literal(this.render() ~ '(' ~ arguments ~ ')') }});
        found text := replace(lower(pg_get_function_result(former)), 'timestamp with time zone', 'timestamptz');
    begin
        if found <> {{ headrace_dbt.literal(model.returns.data_type | lower) }} then
            execute format('drop function %s', former);
        end if;
    end
    $hook$
{%- endmacro %}
