-- The rights of the three group roles. `headrace init` runs this as the owner of the schemas, after the migrations and at
-- every run. Logins are members of a group role; docs/security.md describes how.

-- The loader plans, drains, loads, replays, reloads, fills, adopts, accepts losses, and reads all of it. It adds ledger
-- lines and never changes them. It owns nothing: only the owner creates, alters, drops and truncates tables.
grant usage on schema headrace, staging to headrace_loader;
grant select on all tables in schema headrace to headrace_loader;
grant insert on headrace.batches to headrace_loader;
-- when and by which login is Postgres's to say
grant insert (acknowledgement_id, dataset, reason, dead_letters, why, acknowledged_by)
on headrace.acknowledgements
to headrace_loader;
grant insert, update
on
    headrace.datasets,
    headrace.generations,
    headrace.checkpoints,
    headrace.dead_letters,
    headrace.observations,
    headrace.samples,
    headrace.totals,
    headrace.leases,
    headrace.loaded_files,
    headrace.failures
to headrace_loader;
grant delete on headrace.samples, headrace.leases to headrace_loader;
-- it pauses and resumes datasets, and changes no pause of the past: who and when are the server's own words
grant insert (dataset, paused_by, why), update (resumed_at, resumed_by, resumed_login)
on headrace.pauses
to headrace_loader;
grant select, insert, update, delete on all tables in schema staging to headrace_loader;

-- dbt reads the ledger and the staged rows, claims batches, and owns the marts. It cannot read dead letters.
grant usage on schema headrace, staging to headrace_dbt;
grant usage, create on schema marts, marts_log to headrace_dbt;
grant select on headrace.datasets, headrace.batches, headrace.claims, headrace.builds to headrace_dbt;
grant insert, update, delete on headrace.claims to headrace_dbt;
grant select, insert, update, delete on headrace.model_states, headrace.model_upstreams to headrace_dbt;
grant update on headrace.build_lock to headrace_dbt;
grant select, insert, update, delete on headrace.model_locks to headrace_dbt;
grant insert on headrace.builds to headrace_dbt;
grant select on all tables in schema staging, marts to headrace_dbt;

-- Readers query the marts and the progress. Of dead letters they see coordinate and reason only: key, value, headers and
-- detail, which quotes the value, may hold data that was not meant for them.
grant usage on schema headrace, marts to headrace_reader;
grant select
on
    headrace.datasets,
    headrace.generations,
    headrace.checkpoints,
    headrace.batches,
    headrace.observations,
    headrace.failures,
    headrace.claims,
    headrace.builds,
    headrace.leases,
    headrace.pauses,
    headrace.acknowledgements,
    headrace.samples,
    headrace.totals,
    headrace.status
to headrace_reader;
grant select (
    dataset, generation, partition, "offset", "timestamp", reason, json_path, batch_id, replayed_by, published_at,
    acknowledgement_id
)
on headrace.dead_letters
to headrace_reader;
grant select on all tables in schema marts to headrace_reader;

-- future tables: staging tables of the owner, marts of dbt, or of an owner who builds
alter default privileges in schema staging grant select, insert, update, delete on tables to headrace_loader;
alter default privileges in schema staging grant select on tables to headrace_dbt;
alter default privileges in schema marts grant select on tables to headrace_dbt, headrace_reader;
alter default privileges for role headrace_dbt in schema marts grant select on tables to headrace_reader;

-- Marts that the owner built before roles were separated belong to dbt from now on: only an owner may replace a table.
-- Not while no login of this database is a member: changing an owner waits for every reader.
do $$
declare
    command text;
begin
    if not exists (
        select from pg_auth_members
        where
            roleid = 'headrace_dbt'::regrole
            and member <> current_user::regrole
            and has_database_privilege(member, current_database(), 'connect')
    ) then
        return;
    end if;
    for command in
        select format('alter table %s owner to headrace_dbt', c.oid::regclass)
        from pg_class as c
        where
            c.relnamespace in ('marts'::regnamespace, 'marts_log'::regnamespace)
            and c.relkind in ('r', 'v', 'm')
            and c.relowner = current_user::regrole
        union all
        select format('alter routine %s owner to headrace_dbt', p.oid::regprocedure)
        from pg_proc as p
        where p.pronamespace = 'marts'::regnamespace and p.proowner = current_user::regrole
    loop
        execute command;
    end loop;
end
$$;
