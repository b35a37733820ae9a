with

source as (
    select * from {{ current('orders') }}
),

renamed as (
    select
        order_id,
        customer,
        amount,
        ordered_at
    from source
)

select * from renamed
