{#
    The current version of each key of a dataset, as a relation for a FROM clause: the newest generation; inside a
    partition the highest offset; between partitions those winners by time, then partition. Replayed rows keep their
    coordinates, so an old one never beats a newer version or a tombstone. wins='first' reverses the order: of events
    that were sent twice the first one stays, and tombstones are ignored.

    key and wins are by default those of the source's meta; unit tests do not see sources and need the key here. Without
    a key every record is an entity. No CTEs: each subquery lets a condition on the key through to the index.

    current('orders.items') are the elements of the child `items` that belong to current versions of orders.
#}
{% macro current(dataset, key=none, wins=none) -%}
    {%- if '.' in dataset -%}
        {{ return(headrace_dbt.current_elements(dataset.split('.')[0], dataset.split('.')[1], key, wins)) }}
    {%- endif -%}
    {%- set staged = source('staging', dataset) -%}
    {%- set meta = headrace_dbt.dataset_meta(dataset) -%}
    {%- set key = key or meta.get('key') -%}
    {%- set columns = headrace_dbt.column_list(headrace_dbt.key_columns(key)) -%}
    {%- set newest, unknown = ('desc', 'last') if (wins or meta.get('wins', 'newest')) == 'newest' else ('asc', 'first') -%}
    {%- if not key -%}
    (select * from {{ staged }} where not _deleted) as {{ headrace_dbt.exactly(dataset) }}
    {%- else -%}
    (
        select *
        from (
            select distinct on ({{ columns }}) *
            from (
                select distinct on ({{ columns }}, _generation, _partition) *
                from {{ staged }}
                where
                    ({{ columns }}) is not null
                    {{- ' and not _deleted' if newest == 'asc' }}
                order by {{ columns }}, _generation {{ newest }}, _partition, _offset {{ newest }}
            ) as partition_winners
            order by {{ columns }}, _generation {{ newest }}, _timestamp {{ newest }} nulls {{ unknown }}, _partition {{ newest }}
        ) as winners
        where not _deleted
    ) as {{ headrace_dbt.exactly(dataset) }}
    {%- endif -%}
{%- endmacro %}


{#
    The elements of a child whose records are current versions: with the record's key and time in front, and their place
    in the array, _index. Those of an older version, and of a deleted record, are not among them.
#}
{% macro current_elements(dataset, child, key, wins) -%}
    {%- set key = key or headrace_dbt.dataset_meta(dataset).get('key') -%}
    (
        select
            {%- if key %}
            {{ headrace_dbt.column_list(headrace_dbt.key_columns(key), 'records') }},
            {%- endif %}
            records._timestamp,
            elements.*
        from (
            select *
            from {{ headrace_dbt.current(dataset, key, wins) }}
        ) as records
        inner join {{ source('staging', dataset ~ '__' ~ child) }} as elements
            on
                records._generation = elements._generation
                and records._partition = elements._partition
                and records._offset = elements._offset
    ) as {{ headrace_dbt.exactly(child) }}
{%- endmacro %}


{# The meta of a dataset's source; empty while dbt parses, and in unit tests, which do not see sources. #}
{% macro dataset_meta(dataset) -%}
    {%- for source in (graph.get('sources') or {}).values() if source.schema == 'staging' and source.identifier == dataset -%}
        {{ return(source.config.get('meta') or source.meta or {}) }}
    {%- endfor -%}
    {{ return({}) }}
{%- endmacro %}


{# A key is a column or a list of them. Without a key every record is an entity, identified by its coordinates. #}
{% macro key_columns(key) -%}
    {%- if not key -%}
        {{ return(['_generation', '_partition', '_offset']) }}
    {%- endif -%}
    {%- set names = [] -%}
    {%- for name in ([key] if key is string else key) -%}
        {%- do names.append(headrace_dbt.unquoted(name)) -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}
