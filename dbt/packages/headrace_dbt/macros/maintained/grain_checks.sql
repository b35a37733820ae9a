{# Refuses a grain that some upstream cannot touch, when a model is built for the first time or with another config. #}
{% macro check_grains(build) -%}
    {%- set names = build.upstreams | map(attribute='name') | list -%}
    {%- set touched = config.get('touched') or {} -%}
    {%- for name in touched if name not in names -%}
        {%- do headrace_dbt.refuse(build.relation, "found '" ~ name ~ "' in touched, expected an upstream: " ~ names | join(', ')) -%}
    {%- endfor -%}
    {%- if config.get('grain') -%}
        {%- for upstream in build.upstreams -%}
            {%- if upstream.kind == 'dataset' -%}
                {%- do headrace_dbt.check_dataset_grain(build, upstream) -%}
            {%- elif upstream.kind == 'model' and upstream.name not in touched -%}
                {%- do headrace_dbt.check_mapping(build, upstream) -%}
            {%- elif upstream.kind == 'model' and build.relation.render() in touched[upstream.name] -%}
                {%- do headrace_dbt.refuse(build.relation, "found its own name in touched, expected {{ ref('...') }} inside the quotes: outside of them dbt does not know yet what it refers to") -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}


{# A model that reads a dataset reads nothing else, and its grain is of the key: older versions are no rows of a model. #}
{% macro check_dataset_grain(build, upstream) -%}
    {%- if build.upstreams | length > 1 -%}
        {%- do headrace_dbt.refuse(build.relation, 'found a grain and the upstreams ' ~ build.upstreams | map(attribute='key') | join(', ')
            ~ ', expected one dataset or models only; make a model of ' ~ upstream.key ~ ' and read that, or remove grain') -%}
    {%- endif -%}
    {%- for grain in build.grains if grain.name not in headrace_dbt.key_of(upstream) -%}
        {%- do headrace_dbt.refuse(build.relation, 'found the grain ' ~ grain.name ~ ', expected columns of the key of ' ~ upstream.key ~ ' ('
            ~ headrace_dbt.key_of(upstream) | join(', ') ~ '); make a model of ' ~ upstream.key ~ ' and read that, or remove grain') -%}
    {%- endfor -%}
{%- endmacro %}


{# Refuses an upstream whose columns do not give the grain. The block runs the expressions with the rights of the build. #}
{% macro check_mapping(build, upstream) -%}
    {%- set expressions, missing = [], [] -%}
    {%- for grain in build.grains -%}
        {%- set expression = headrace_dbt.expression_for(grain, upstream) -%}
        {%- do missing.append(grain.name) if not expression else expressions.append(expression) -%}
    {%- endfor -%}
    {%- if not missing -%}
        {%- do headrace_dbt.run_sql(
            "select set_config('headrace.unmapped', '', true); do $headrace$ begin perform " ~ expressions | join(', ') ~ " from "
            ~ upstream.relation.include(database=false) ~ " limit 0; exception when undefined_column then"
            ~ " perform set_config('headrace.unmapped', sqlerrm, true); end $headrace$"
        ) -%}
        {%- set error = headrace_dbt.fetch_values("select current_setting('headrace.unmapped')")[0] -%}
        {%- do missing.append(error) if error -%}
    {%- endif -%}
    {%- if missing -%}
        {%- set names = build.grains | map(attribute='name') | join(', ') -%}
        {%- do headrace_dbt.refuse(build.relation, 'found nothing that says which ' ~ names ~ ' a row of ' ~ upstream.key ~ ' touches ('
            ~ missing | join(', ') ~ '), expected its columns ' ~ names ~ ', or an expression of its columns: grain={' ~ "'" ~ build.grains[0].name
            ~ "': {'" ~ upstream.name ~ "': '<expression>'}}, or a SELECT: touched={'" ~ upstream.name ~ "': \"select " ~ names
            ~ ' from changed inner join ... \"}; or remove grain') -%}
    {%- endif -%}
{%- endmacro %}


{# Refuses a SELECT without the grain's columns. #}
{% macro check_grain_columns(build, columns) -%}
    {%- for grain in build.grains if grain.name not in columns -%}
        {%- do headrace_dbt.refuse(build.relation, 'found no column ' ~ grain.name ~ ' in its SELECT, expected one: the grain is of columns of the result;'
            ~ ' add it, or correct grain') -%}
    {%- endfor -%}
{%- endmacro %}
