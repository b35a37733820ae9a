-- marts.rides holds exactly the staged records that are no tombstones
with

versions as (
    select * from {{ ref('stg_kafka__rides') }}
),

staged as (
    {{ current_version('versions', 'rides') }}
),

rides as (
    select * from {{ ref('rides') }}
),

final as (
    select
        staged._generation as staged_generation,
        staged._partition as staged_partition,
        staged._offset as staged_offset,
        rides._generation,
        rides._partition,
        rides._offset
    from staged
    full join rides
        on
            staged._generation = rides._generation
            and staged._partition = rides._partition
            and staged._offset = rides._offset
    where
        (staged._offset is null or rides._offset is null)
        and {{ has_built_all(ref('rides'), 'rides') }}
)

select * from final
