-- Marts are indexed by minute or hour. date_trunc with a zone is immutable only from PostgreSQL 18 on: models now say
-- it as every version can index it, and indexes have to say the same to be used.
do $$
declare
    old record;
    three_arguments constant text := $re$date_trunc\('(minute|hour)'::text, ([^ ',()]+), 'UTC'::text\)$re$;
    -- a name or a literal of another shape could hold a statement of its own
    whole constant text := $re$^CREATE INDEX \S+ ON \S+ USING btree \($re$ || three_arguments || $re$[^'();]*\)\Z$re$;
begin
    for old in
        select indexes.indexrelid::regclass as name, pg_get_indexdef(indexes.indexrelid) as definition
        from pg_index as indexes
        inner join pg_class as tables on indexes.indrelid = tables.oid
        inner join pg_namespace as schemas on tables.relnamespace = schemas.oid
        where
            schemas.nspname in (select schema from headrace.claims)
            and pg_get_indexdef(indexes.indexrelid) ~ whole
            and pg_has_role(tables.relowner, 'usage')
    loop
        execute regexp_replace(
            regexp_replace(old.definition, '^CREATE INDEX \S+ ON ', 'create index on '),
            three_arguments,
            $re$(date_trunc('\1', \2 at time zone 'UTC') at time zone 'UTC')$re$
        );
        execute format('drop index %s', old.name);
    end loop;
end
$$;
