select identifier as model, 1 as depth, array[dataset] as upstreams
from headrace.claims
where schema = %(schema)s and dataset = %(dataset)s
order by model
limit %(models)s
