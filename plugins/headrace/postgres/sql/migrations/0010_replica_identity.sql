-- A publication for all tables refuses updates and deletes of tables that have neither a primary key nor another
-- replica identity: the marts, and the rows that reloads replaced.
do $$
declare
    found regclass;
begin
    for found in
        select tables.oid::regclass
        from pg_class as tables
        inner join pg_namespace as schemas on tables.relnamespace = schemas.oid
        where
            tables.relkind in ('r', 'p')
            and tables.relreplident = 'd'
            and (schemas.nspname in ('staging', 'marts') or schemas.nspname in (select schema from headrace.claims))
            and not exists (
                select from pg_index as indexes where indexes.indrelid = tables.oid and indexes.indisprimary
            )
            and pg_has_role(tables.relowner, 'usage') -- a developer's own target is theirs
    loop
        execute format('alter table %s replica identity full', found);
    end loop;
end
$$;
