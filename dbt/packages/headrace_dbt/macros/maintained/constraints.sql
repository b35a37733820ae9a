{#
    The data tests not_null, unique and accepted_values of a model become constraints of its table, so that no row is
    written that they would find. Tests with a condition, of severity warn or with error_if stay tests.
#}
{% macro enforced_tests() -%}
    {%- set found = {'not_null': [], 'unique': [], 'accepted_values': {}} -%}
    {%- for node in graph.nodes.values() if node.resource_type == 'test' and node.attached_node == model.unique_id and node.test_metadata -%}
        {%- set arguments = node.test_metadata.kwargs -%}
        {%- set is_plain = not node.config.get('where') and (node.config.get('severity') or 'error') | lower == 'error'
            and (node.config.get('error_if') or '!= 0') == '!= 0' -%}
        {%- set column = arguments.get('column_name') -%}
        {%- if is_plain and column and not node.test_metadata.namespace and node.test_metadata.name in ('not_null', 'unique') -%}
            {%- do found[node.test_metadata.name].append(headrace_dbt.unquoted(column)) -%}
        {%- elif is_plain and column and not node.test_metadata.namespace and node.test_metadata.name == 'accepted_values' -%}
            {%- do found.accepted_values.update({
                headrace_dbt.unquoted(column): headrace_dbt.values_sql(arguments.get('values', []), arguments.get('quote', true))
            }) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return({'not_null': found.not_null | sort, 'unique': found.unique | sort, 'accepted_values': found.accepted_values}) }}
{%- endmacro %}


{# The values of a test accepted_values as SQL. #}
{% macro values_sql(values, quote) -%}
    {%- set literals = [] -%}
    {%- for value in values -%}
        {%- do literals.append(headrace_dbt.literal(value) if quote else value | string) -%}
    {%- endfor -%}
    {{ return(literals | join(', ')) }}
{%- endmacro %}


{# The name of the check constraint of a test accepted_values. #}
{% macro check_name(identifier, column, values) -%}
    {{ return(headrace_dbt.short_name((identifier ~ '_' ~ column)[:45] ~ '_accepted_' ~ local_md5(values)[:8])) }}
{%- endmacro %}


{# The names of the check constraints of tests, with their conditions: a name is of one condition. #}
{% macro checks_of(build) -%}
    {%- set checks = {} -%}
    {%- for column, values in build.tests.accepted_values.items() if column in build.columns -%}
        {%- do checks.update({headrace_dbt.check_name(build.relation.identifier, column, values): headrace_dbt.exactly(column) ~ ' in (' ~ values ~ ')'}) -%}
    {%- endfor -%}
    {{ return(checks) }}
{%- endmacro %}


{# The statement that takes away the constraints of former tests, before rows are written; empty where there are none. #}
{% macro former_constraints_sql(build) -%}
    {%- set checks = headrace_dbt.checks_of(build) -%}
    {%- set actions = [] -%}
    {%- for column in build.state.not_null if column in build.columns and column not in build.tests.not_null -%}
        {%- do actions.append('alter column ' ~ headrace_dbt.exactly(column) ~ ' drop not null') -%}
    {%- endfor -%}
    {%- for name in build.state.checks if name not in checks -%}
        {%- do actions.append('drop constraint if exists ' ~ headrace_dbt.exactly(name)) -%}
    {%- endfor -%}
    {{ return('alter table ' ~ build.relation.include(database=false) ~ ' ' ~ actions | join(', ') ~ '; ' if actions else '') }}
{%- endmacro %}


{# The statement that adds the constraints of tests, after rows are written; empty where the table has them. #}
{% macro constraints_sql(build) -%}
    {%- set actions = [] -%}
    {%- for column in build.tests.not_null if column in build.columns and column not in build.state.not_null -%}
        {%- do actions.append('alter column ' ~ headrace_dbt.exactly(column) ~ ' set not null') -%}
    {%- endfor -%}
    {%- for name, condition in headrace_dbt.checks_of(build).items() if name not in build.state.checks -%}
        {%- do actions.append('add constraint ' ~ headrace_dbt.exactly(name) ~ ' check (' ~ condition ~ ')') -%}
    {%- endfor -%}
    {{ return('alter table ' ~ build.relation.include(database=false) ~ ' ' ~ actions | join(', ') ~ '; ' if actions else '') }}
{%- endmacro %}


{# Whether a column of pg_attribute has no nulls: from Postgres 18 on its constraint may be not valid (contype n). #}
{% macro is_not_null(column) -%}
    {{ return(
        column ~ ".attnotnull and not exists (select from pg_constraint as n where n.contype = 'n' and not n.convalidated"
        ~ " and n.conrelid = " ~ column ~ ".attrelid and n.conkey[1] = " ~ column ~ ".attnum)"
    ) }}
{%- endmacro %}


{#
    A data test that reads nothing where a constraint of its table says the same: `kind` is not_null, unique, or the name
    of a check constraint. Other tests run as they are.
#}
{% macro unless_enforced(test_sql, model, column_name, kind) -%}
    {%- if model is string -%}
        {{ return(test_sql) }}
    {%- endif -%}
    {%- set table = "to_regclass(" ~ headrace_dbt.literal(model.include(database=false)) ~ ")" -%}
    {%- set column = headrace_dbt.literal(headrace_dbt.unquoted(column_name)) -%}
    select * from ({{ test_sql }}
    ) as _found
    where not exists (
        {%- if kind == 'not_null' %}
        select from pg_attribute as a
        where a.attrelid = {{ table }} and a.attname = {{ column }} and {{ headrace_dbt.is_not_null('a') }}
        {%- elif kind == 'unique' %}
        select from pg_index as i
        inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where
            i.indrelid = {{ table }} and i.indisunique and i.indisvalid and i.indimmediate
            and i.indnkeyatts = 1 and i.indpred is null and a.attname = {{ column }}
        {%- else %}
        select from pg_constraint where conrelid = {{ table }} and conname = {{ headrace_dbt.literal(kind) }} and convalidated
        {%- endif %}
    )
{%- endmacro %}
