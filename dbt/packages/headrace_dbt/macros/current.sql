{#
    The current version of each key of a dataset, as a relation for a FROM clause: the newest generation; inside a
    partition the highest offset; between partitions those winners by time, then partition. Replayed rows keep their
    coordinates, so an old one never beats a newer version or a tombstone. wins='first' reverses the order: of events
    that were sent twice the first one stays, and tombstones are ignored.

    versions='position', for change events: the source's own position orders versions. A change whose position lies
    before that of an earlier record of its key was sent again, and is passed over; between partitions the newest
    position wins. Reads of a snapshot and tombstones have no place among the changes: of these the offset decides.

    key, wins and versions are by default those of the source's meta; unit tests do not see sources and need them here.
    Without a key every record is an entity. No CTEs: each subquery lets a condition on the key through to the index.

    current('orders.items') are the elements of the child `items` that belong to current versions of orders.
#}
{% macro current(dataset, key=none, wins=none, versions=none) -%}
    {%- if '.' in dataset -%}
        {{ return(headrace_dbt.current_elements(dataset.split('.')[0], dataset.split('.')[1], key, wins, versions)) }}
    {%- endif -%}
    {%- set meta = headrace_dbt.dataset_meta(dataset) -%}
    {%- set key = key or meta.get('key') -%}
    {%- set columns = headrace_dbt.column_list(headrace_dbt.key_columns(key)) -%}
    {%- set by_position = (versions or meta.get('versions', 'offset')) == 'position' -%}
    {%- set staged = headrace_dbt.positioned(dataset, columns) if by_position else source('staging', dataset) -%}
    {%- set newest, unknown = ('desc', 'last') if (wins or meta.get('wins', 'newest')) == 'newest' else ('asc', 'first') -%}
    {%- if not key -%}
    (select * from {{ source('staging', dataset) }} where not _deleted) as {{ headrace_dbt.exactly(dataset) }}
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
            order by {{ columns }}, _generation {{ newest }}
                {{- ', _newest desc nulls last' if by_position }}, _timestamp {{ newest }} nulls {{ unknown }}, _partition {{ newest }}
        ) as winners
        where not _deleted
    ) as {{ headrace_dbt.exactly(dataset) }}
    {%- endif -%}
{%- endmacro %}


{#
    The elements of a child whose records are current versions: with the record's key and time in front, and their place
    in the array, _index. Those of an older version, and of a deleted record, are not among them.
#}
{% macro current_elements(dataset, child, key, wins, versions) -%}
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
            from {{ headrace_dbt.current(dataset, key, wins, versions) }}
        ) as records
        inner join {{ source('staging', dataset ~ '__' ~ child) }} as elements
            on
                records._generation = elements._generation
                and records._partition = elements._partition
                and records._offset = elements._offset
    ) as {{ headrace_dbt.exactly(child) }}
{%- endmacro %}


{#
    The records of a dataset without those that were sent again: _newest_change is the greatest position of a key's
    changes so far, _newest that of its records. Of MySQL's binlogs the first number tells one server's from another's.
#}
{% macro positioned(dataset, columns) -%}
    (
        select *
        from (
            select
                *,
                max(_position) filter (where _op is distinct from 'r') over so_far as _newest_change,
                max(_position) over so_far as _newest
            from {{ source('staging', dataset) }}
            window so_far as (partition by {{ columns }}, _generation, _partition order by _offset)
        ) as sent
        where
            _position is null
            or _op = 'r'
            or _position >= _newest_change
            or _position[1] <> _newest_change[1]
    ) as positioned
{%- endmacro %}


{# The meta of a dataset's source; empty while dbt parses, and in unit tests, which do not see sources. #}
{% macro dataset_meta(dataset) -%}
    {%- for source in (graph.get('sources') or {}).values() if source.schema == headrace_dbt.staging_schema() and source.identifier == dataset -%}
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
