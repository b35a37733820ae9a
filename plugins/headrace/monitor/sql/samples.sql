select s.dataset, s.partition, s.minute, s.end_offset, s.next_offset
from headrace.samples as s
inner join headrace.generations as g
    on g.dataset = s.dataset and g.generation = s.generation and g.is_open
where s.minute >= %s - interval '10 minutes'
order by s.minute
