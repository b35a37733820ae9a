select
    has_column_privilege('headrace.dead_letters', 'value', 'select')
    and has_column_privilege('headrace.dead_letters', 'detail', 'select')
