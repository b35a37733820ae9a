{#
    All staged versions of a dataset's records, including those that a reload replaced (is_replaced), with the given
    columns of the contract and the bookkeeping columns that current_version needs.

    No CTEs here: Postgres does not flatten a subquery with CTEs, and would scan the whole table for a few claimed keys.
#}
{% macro staged_versions(dataset, columns) -%}
    {%- set staged = source('staging', dataset) -%}
    {%- set names = [] -%}
    {%- for column in columns -%}
        {%- do names.append(selected(column)) -%}
    {%- endfor -%}
    {#- created with the dataset under the name that replaced_table() returns; not declared as a source -#}
    {%- for relation in [staged, staged.incorporate(path={'identifier': '_replaced_' ~ dataset})] -%}
select
    {{ names | join(',\n    ') }},
    _generation,
    _partition,
    _offset,
    _timestamp,
    _deleted,
    {{ 'false' if loop.first else 'true' }} as is_replaced
from {{ relation }}
{{ 'union all\n' if loop.first }}
    {%- endfor -%}
{%- endmacro %}


{#
    The current version of each key of a dataset, from a CTE that holds all its staged versions: the newest
    generation; inside a partition the highest offset; between partitions those winners by time, then partition.
    Replayed rows keep their coordinates, so an old one never beats a newer version or a tombstone. wins='first'
    reverses the order: of events that were sent twice the first one stays, and tombstones are ignored.

    A full build returns the keys that have a current version. An incremental build returns exactly one row for every
    claimed key: all columns but the key are null if its newest version is a tombstone or it has none.

    key repeats the key in the source's meta, because unit tests do not see sources. Without a key every record is an
    entity.
#}
{% macro current_version(versions, dataset, key=none, wins='newest') -%}
    {%- set columns = columns_of(key) -%}
    {%- set key = columns | join(', ') -%}
    {%- set newest, unknown = ('desc', 'last') if wins == 'newest' else ('asc', 'first') -%}
    {%- set in_partition = '_generation ' ~ newest ~ ', _partition, _offset ' ~ newest -%}
    {%- set between_partitions = '_generation ' ~ newest ~ ', _timestamp ' ~ newest ~ ' nulls ' ~ unknown ~ ', _partition ' ~ newest -%}
    {%- set counts = 'not is_replaced' if wins == 'newest' else 'not is_replaced and not _deleted' -%}
    {%- if is_incremental() -%}
    {#- one lookup for each key: a join was planned as a scan of all staged rows -#}
    select *
    from {{ claimed(dataset) }} as claimed
    left join lateral (
        select *
        from (
            select *
            from (
                select distinct on (_generation, _partition) *
                from {{ versions }}
                where
                    ({{ versions }}.{{ columns | join(', ' ~ versions ~ '.') }}) = (claimed.{{ columns | join(', claimed.') }})
                    and {{ counts }}
                order by {{ in_partition }}
            ) as partition_winners
            order by {{ between_partitions }}
            limit 1
        ) as winner
        where not _deleted
    ) as left_over using ({{ key }})
    {%- else -%}
    select *
    from (
        select distinct on ({{ key }}) *
        from (
            select distinct on ({{ key }}, _generation, _partition) *
            from {{ versions }}
            where {{ columns | join(' is not null and ') }} is not null and {{ counts }}
            order by {{ key }}, {{ in_partition }}
        ) as partition_winners
        order by {{ key }}, {{ between_partitions }}
    ) as winners
    where not _deleted
    {%- endif -%}
{%- endmacro %}


{# The number of ranks in ranked marts for each location or service. The functions read the tables and have no limit. #}
{% macro ranks_held() -%} 20 {%- endmacro %}
