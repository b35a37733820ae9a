-- Models that a build keeps equal to their SELECT (dbt/packages/headrace_dbt): what each has built and seen.

-- the logs of the models of `marts`, made by dbt; a developer's target has a schema of its own
create schema if not exists marts_log;

-- one row per model; written only in the model's own transaction
create table headrace.model_states (
    schema text not null,
    identifier text not null,
    table_oid oid not null, -- another table in its place, also a restored one, is compared as a whole
    definition text not null, -- md5 of the compiled SQL and the config
    settings jsonb not null,
    build bigint not null, -- number of the last build that changed rows; begins at the clock in microseconds
    floor bigint not null, -- the log has all changes of builds after this one
    logged bigint not null, -- rows in the log
    is_distrusted boolean not null, -- an audit found a wrong grain: computed as a whole until the definition changes
    built_at timestamptz not null default clock_timestamp(),
    primary key (schema, identifier)
);

-- what a model has seen of each of its upstreams
create table headrace.model_upstreams (
    schema text not null,
    identifier text not null,
    upstream text not null, -- schema.identifier
    kind text not null check (kind in ('dataset', 'model', 'content')),
    identity text not null, -- model: the table's oid; dataset: headrace.datasets.built
    position text not null, -- model: number of a build; dataset: seq of a batch; content: a hash
    primary key (schema, identifier, upstream),
    foreign key (schema, identifier) references headrace.model_states on delete cascade
);
create index model_upstreams_of_models on headrace.model_upstreams (upstream) where kind = 'model';

-- A maintained table holds what its SELECT says. What is changed by hand would be logged nowhere, so that models that
-- read it would miss it, and the next build of a touched grain would undo it. Runs with the rights of its caller.
create function headrace.refuse_manual_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('headrace.building', true) is distinct from format('%s.%s', tg_table_schema, tg_table_name) then
        raise exception '%.%: found a change by hand, expected changes only by dbt, which keeps this table equal to its '
            'SELECT; nothing was changed; correct the model or its upstreams, then run `headrace build`',
            tg_table_schema, tg_table_name;
    end if;
    return null;
end
$$;
