{{
    config(
        grain='home',
        touched={'visits': "select people.home from changed inner join {{ ref('people') }} as people on changed.person = people.id"},
    )
}}

with

visits as (
    select * from {{ ref('visits') }}
),

people as (
    select * from {{ ref('people') }}
)

select
    people.home,
    count(*) as visits,
    sum(visits.minutes) as minutes
from visits
inner join people on visits.person = people.id
group by people.home
