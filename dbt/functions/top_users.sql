select
    userid,
    revenue
from {{ ref('visitor_revenues').render() }}
where location = $1
order by revenue desc, userid
limit $2
