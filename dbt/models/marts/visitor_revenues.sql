{{ config(
    grain=['location', 'userid'],
    touched={
        'users': "select jobs.location, changed.userid from changed inner join {{ ref('jobs') }} as jobs using (userid)",
        'jobs': "select c.location, c.userid from changed as c inner join {{ ref('users') }} as u using (userid) where u.location <> c.location"
            " union select location, userid from changed inner join {{ this }} as held using (location, userid)",
    },
    unique_key=['userid', 'location'],
    indexes=[{'columns': ['location', 'revenue desc', 'userid']}],
) }}

with

jobs as (
    select * from {{ ref('jobs') }}
),

users as (
    select * from {{ ref('users') }}
)

select
    jobs.location,
    jobs.userid,
    sum(jobs.revenue) as revenue
from jobs
inner join users on jobs.userid = users.userid
where users.location <> jobs.location
group by 1, 2
having sum(jobs.revenue) <> 0
