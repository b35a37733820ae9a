-- depends_on: {{ ref('homes') }}, {{ ref('places') }}
-- the log of visits has what the second batch changed: visit 3 moved, 4 is gone, 5 came, 6 was longer; 1 and 2 stayed
select * from {{ headrace_dbt.log_of(ref('visits')) }}
where id in (1, 2)
