-- marts.users holds exactly the keys whose newest staged version is no tombstone
with

versions as (
    select * from {{ ref('stg_files__users') }}
),

staged as (
    {{ current_version('versions', 'users', key='userid') }}
),

users as (
    select * from {{ ref('users') }}
),

final as (
    select
        staged.userid as staged_userid,
        users.userid
    from staged
    full join users on staged.userid = users.userid
    where
        (staged.userid is null or users.userid is null)
        and {{ has_built_all(ref('users'), 'users') }}
)

select * from final
