select has_table_privilege('headrace.model_upstreams', 'select')
