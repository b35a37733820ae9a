{#
    All staged versions of a dataset's records, also those that a reload replaced (is_replaced), with these columns of
    the contract and the bookkeeping that current_version needs.

    No CTEs here: Postgres flattens no subquery that has some, and would scan the whole table for a few claimed keys.
#}
{% macro staged_versions(dataset, columns) -%}
    {%- set staged = source('staging', dataset) -%}
    {%- set names = [] -%}
    {%- for column in columns -%}
        {%- do names.append(selected(column)) -%}
    {%- endfor -%}
    {#- made for the dataset, as replaced_table() has it: no source of its own to declare -#}
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
    turns the order round: of events that were sent twice the first one stays, and tombstones count for nothing.

    A run from nothing returns the keys that are left. An incremental run returns exactly one row for every claimed
    key: all but the key is null where a tombstone, or nothing, is left of it.

    key is the one under the source's meta, said again: unit tests do not see sources. Without one every record is
    an entity of its own.
#}
{% macro current_version(versions, dataset, key=none, wins='newest') -%}
    {%- set columns = columns_of(key) -%}
    {%- set key = columns | join(', ') -%}
    {%- set newest, unknown = ('desc', 'last') if wins == 'newest' else ('asc', 'first') -%}
    {%- set in_partition = '_generation ' ~ newest ~ ', _partition, _offset ' ~ newest -%}
    {%- set between_partitions = '_generation ' ~ newest ~ ', _timestamp ' ~ newest ~ ' nulls ' ~ unknown ~ ', _partition ' ~ newest -%}
    {%- set counts = 'not is_replaced' if wins == 'newest' else 'not is_replaced and not _deleted' -%}
    {%- if is_incremental() -%}
    {#- key by key: a join was planned as a scan of all staged rows -#}
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


{#
    The minute that a time falls into, in UTC whatever the session's zone. An index can hold it: date_trunc with a zone
    is immutable only from PostgreSQL 18 on, this on every version. In parentheses, as an index wants expressions.
#}
{% macro minute_of(column) -%}
    (date_trunc('minute', {{ column }} at time zone 'UTC') at time zone 'UTC')
{%- endmacro %}


{# The hour, likewise. #}
{% macro hour_of(column) -%}
    (date_trunc('hour', {{ column }} at time zone 'UTC') at time zone 'UTC')
{%- endmacro %}


{# How many ranks the ranked marts hold of each location or service. The functions go deeper: they read the tables. #}
{% macro ranks_held() -%} 20 {%- endmacro %}
