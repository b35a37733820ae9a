with numbered as (
    select seq from headrace.batches where dataset = %(dataset)s and seq <= %(last_seq)s
    union all
    select 0
),

followed as (
    select seq, lead(seq, 1, %(last_seq)s + 1) over (order by seq) as next_seq from numbered
)

select seq + 1 as first_missing, next_seq - 1 as last_missing, count(*) over () as total
from followed
where next_seq <> seq + 1
order by seq
limit %(limit)s
