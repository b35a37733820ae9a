with

source as (
    select * from {{ current('users', key='userid') }}
),

renamed as (
    select
        userid,
        location
    from source
)

select * from renamed
