-- every service has as many ranks as it has jobs, up to the number that is held; read once a day, by audit_marts
with

expected as (
    select
        servicename,
        least(count(*), {{ ranks_held() }}) as ranks
    from {{ ref('jobs') }}
    group by 1
),

held as (
    select
        servicename,
        count(*) as ranks,
        max(rank) as last_rank
    from {{ ref('latest_jobs_by_service') }}
    group by 1
),

final as (
    select
        coalesce(expected.servicename, held.servicename) as servicename,
        expected.ranks as expected_ranks,
        held.ranks,
        held.last_rank
    from expected
    full join held on expected.servicename = held.servicename
    where
        (expected.ranks is distinct from held.ranks or expected.ranks is distinct from held.last_rank)
        and {{ in_audits(ref('latest_jobs_by_service')) }}
)

select * from final
