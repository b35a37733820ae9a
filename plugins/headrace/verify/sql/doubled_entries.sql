with stored as (
    select _offset, _key from {staging} where _generation = %(generation)s
    union
    select "offset", key from headrace.dead_letters
    where dataset = %(dataset)s and generation = %(generation)s
)

select min(_offset) as first_offset, max(_offset) as last_offset, encode(_key, 'escape') as id
from stored
group by _key
having count(*) > 1
order by last_offset
