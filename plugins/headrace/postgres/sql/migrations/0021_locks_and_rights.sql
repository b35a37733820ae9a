-- Locks that need a privilege, and whose code a session must not run.

-- Whoever may connect can hold an advisory lock for as long as they like. These are taken with `lock table` and `select
-- for update`, which only the owner and headrace_dbt may do.

-- held, in exclusive mode, by the build that runs. It has no rows: a row's lock would keep vacuum from the whole
-- database for as long as a build takes
create table headrace.build_lock ();

-- a row is locked by the transaction that builds that model, or that replaces the functions of that schema
create table headrace.model_locks (name text primary key);

-- Whether an object of this role would run with rights that its owner lacks, if this session read it or wrote to it:
-- this session may do what the loader or the owner of headrace may, and that role may not. `set role` does not count: a
-- function can reset it.
create function headrace.is_foreign(owner_id oid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select
        owners.oid <> mine.oid
        and not owners.rolsuper
        and not pg_has_role(owners.oid, bookkeeping.nspowner, 'usage')
        and (
            mine.rolsuper
            or pg_has_role(mine.oid, bookkeeping.nspowner, 'usage')
            or exists (
                select from pg_roles as loaders
                where loaders.rolname = 'headrace_loader' and pg_has_role(mine.oid, loaders.oid, 'usage')
            )
        )
    from pg_roles as owners
    cross join pg_roles as mine
    cross join pg_namespace as bookkeeping
    where owners.oid = owner_id and mine.rolname = session_user and bookkeeping.nspname = 'headrace'
$$;

-- The first table, view or function of a schema that is foreign to this session, with its owner; null where all may be
-- used.
create function headrace.foreign_object(schema_name text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format('%s of %s', found.name, pg_get_userbyid(found.owner_id))
    from (
        select 1 as place, tables.oid::regclass::text as name, tables.relowner as owner_id
        from pg_class as tables
        inner join pg_namespace as schemas on tables.relnamespace = schemas.oid
        where schemas.nspname = schema_name and tables.relkind in ('r', 'p', 'v', 'm', 'f')
        union all
        select 2, routines.oid::regprocedure::text, routines.proowner
        from pg_proc as routines
        inner join pg_namespace as schemas on routines.pronamespace = schemas.oid
        where schemas.nspname = schema_name
    ) as found
    where headrace.is_foreign(found.owner_id)
    order by found.place, found.name
    limit 1
$$;

-- The search_path of dbt's sessions. Models may call functions of extensions in the schema public, unless everybody may
-- create functions there, as in databases that were made before PostgreSQL 15: theirs would be called instead.
create function headrace.dbt_search_path() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when exists (
            select from pg_namespace as schemas
            cross join lateral aclexplode(coalesce(schemas.nspacl, acldefault('n', schemas.nspowner))) as rights
            where schemas.nspname = 'public' and rights.grantee = 0 and rights.privilege_type = 'CREATE'
        ) then 'pg_catalog, pg_temp'
        else 'pg_catalog, public, pg_temp'
    end
$$;
