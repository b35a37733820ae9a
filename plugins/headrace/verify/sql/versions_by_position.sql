-- the rule of `versions: position` in dbt/packages/headrace_dbt/macros/current.sql
(
    select *
    from (
        select
            staged.*,
            max(_position) filter (where _op is distinct from 'r') over so_far as _newest_change,
            max(_position) over so_far as _newest
        from {staging} as staged
        where ({keys}) is not null
        window so_far as (partition by {keys}, _generation, _partition order by _offset)
    ) as positioned
    where
        _position is null
        or _op = 'r'
        or _position >= _newest_change
        or _position[1] <> _newest_change[1]
) as versions
