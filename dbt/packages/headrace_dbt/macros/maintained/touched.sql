{#
    The grain as a list of {name, expression}: name is the result's column. The expression is a column or an expression of
    an upstream's columns, or a dict of these by upstream. Empty: the whole table is computed. A model that reads one
    dataset has those columns of its key as its grain that it keeps.
#}
{% macro grains_of(upstreams, columns) -%}
    {%- set grain = config.get('grain') -%}
    {%- set grains = [] -%}
    {%- if grain is mapping -%}
        {%- for name, expression in grain.items() -%}
            {%- do grains.append({'name': headrace_dbt.unquoted(name), 'expression': expression}) -%}
        {%- endfor -%}
    {%- elif grain -%}
        {%- for name in headrace_dbt.names_of(grain) -%}
            {%- do grains.append({'name': name, 'expression': headrace_dbt.exactly(name)}) -%}
        {%- endfor -%}
    {%- elif upstreams | length == 1 and upstreams[0].kind == 'dataset' -%}
        {%- set held = (columns or []) | map(attribute='name') | list -%}
        {%- for name in headrace_dbt.key_of(upstreams[0]) if name in held -%}
            {%- do grains.append({'name': name, 'expression': headrace_dbt.exactly(name)}) -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(grains) }}
{%- endmacro %}


{# A name or a list of names, as the catalog has them. #}
{% macro names_of(names) -%}
    {%- set found = [] -%}
    {%- for name in ([] if not names else [names] if names is string else names) -%}
        {%- do found.append(headrace_dbt.unquoted(name)) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}


{# The key of a dataset, as its source's meta has it. #}
{% macro key_of(upstream) -%}
    {{ return(headrace_dbt.key_columns(headrace_dbt.dataset_meta(upstream.relation.identifier).get('key'))) }}
{%- endmacro %}


{#
    Makes the temporary table of the grains that the changed rows touch, in their old and new images; returns their
    patterns.
#}
{% macro collect_touched(build) -%}
    {%- set names = headrace_dbt.column_list(build.grains | map(attribute='name') | list) -%}
    {%- set sql -%}
    create temporary table _headrace_touched on commit drop as
    {%- for upstream in build.changed %}
    ({{ headrace_dbt.touched_by_batches(build, upstream) if upstream.kind == 'dataset' else headrace_dbt.touched_by_changes(build, upstream, names) }})
    {{ 'union' if not loop.last }}
    {%- endfor %};
    analyze pg_temp._headrace_touched;
    {{ headrace_dbt.patterns_sql(build.grains) }}
    {%- endset -%}
    {{ return(headrace_dbt.fetch_json(sql)) }}
{%- endmacro %}


{# The grains of an upstream's changes since the last one seen. #}
{% macro touched_by_changes(build, upstream, names) -%}
    {%- set written = (config.get('touched') or {}).get(upstream.name) -%}
    with changed as (
        select * from {{ headrace_dbt.log_of(upstream.relation) }}
        where _headrace_build > {{ upstream.seen }} and _headrace_build <= {{ upstream.position }}
    )
    {% if written -%}
    select distinct {{ names }} from ({{ render(written) }}
    ) as _touched
    {%- else -%}
    select distinct
    {%- for grain in build.grains %}
        {{ headrace_dbt.expression_for(grain, upstream) }} as {{ headrace_dbt.exactly(grain.name) }}{{ ',' if not loop.last }}
    {%- endfor %}
    from changed
    {%- endif -%}
{%- endmacro %}


{# A grain's expression over the columns of one upstream. #}
{% macro expression_for(grain, upstream) -%}
    {{ return(grain.expression.get(upstream.name) if grain.expression is mapping else grain.expression) }}
{%- endmacro %}


{#
    The keys of the batches since the last one seen. Rows that a reload replaced belong to two batches: the one that
    staged them and the one that replaced them. One ledger row at a time, independent of the planner: each names a range
    of the primary key.
#}
{% macro touched_by_batches(build, upstream) -%}
    {%- set key = headrace_dbt.column_list(headrace_dbt.key_of(upstream), 'staged') -%}
    {%- set grains = headrace_dbt.column_list(build.grains | map(attribute='name') | list, 'staged') -%}
    with

    new_batches as materialized (
        select batch_id, generation, partition, start_offset, end_offset
        from {{ headrace_dbt.ledger_table('batches') }}
        where
            dataset = {{ headrace_dbt.literal(upstream.relation.identifier) }}
            and seq > {{ upstream.seen }} and seq <= {{ upstream.position }}
    )

    select {{ grains }}
    from new_batches as batch
    cross join lateral (
        select *
        from {{ upstream.relation.include(database=false) }}
        where
            _generation = batch.generation
            and _partition = batch.partition
            and _offset >= batch.start_offset
            and _offset < batch.end_offset
            and _batch_id = batch.batch_id
        offset 0
    ) as staged
    where ({{ key }}) is not null
    union
    select {{ grains }}
    from new_batches as batch
    inner join {{ headrace_dbt.replaced_of(upstream.relation) }} as staged on batch.batch_id = staged._batch_id
    where ({{ key }}) is not null
    union
    select {{ grains }}
    from new_batches as batch
    inner join {{ headrace_dbt.replaced_of(upstream.relation) }} as staged on batch.batch_id = staged._replaced_by
    where ({{ key }}) is not null
{%- endmacro %}
