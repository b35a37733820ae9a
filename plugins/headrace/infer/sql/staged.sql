with

source as (
    select * from {{ current('$name') }}
),

renamed as (
    select
        $columns
    from source
)

select * from renamed
