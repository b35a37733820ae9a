-- What dbt has built: the claims of its models (dbt/macros/claim.sql) and the results of its builds.

-- dbt would create it too, but two first builds at once would both try to
create schema if not exists marts;

-- a model has built the batches (0, to_seq] of a dataset; written only inside the model's own transaction
create table headrace.claims (
    schema text not null, -- the target's: a developer's target never takes production's claims
    identifier text not null,
    dataset text not null,
    to_seq bigint not null check (to_seq >= 0),
    built uuid not null default gen_random_uuid(), -- new whenever the model starts from zero
    seen jsonb not null, -- upstream to the `built` that it had: where they differ, the model starts from zero
    claimed_at timestamptz not null default clock_timestamp(),
    primary key (schema, identifier, dataset)
);

-- one line per model or function, pass and build; a build's lines are written together when it ends
create table headrace.builds (
    build_id uuid not null,
    pass integer not null check (pass >= 1),
    schema text not null,
    model text not null,
    kind text not null check (kind in ('model', 'function', 'test', 'project')), -- test: of no model; project: dbt itself
    status text not null check (status in ('success', 'error', 'skipped', 'failed tests')),
    rows bigint, -- that the model wrote
    seconds double precision not null,
    failed_tests text[] not null default '{}', -- each with what it found
    message text,
    has_claim boolean not null, -- the model had one when the pass ended
    selection text, -- --select as given; null: the whole project
    project text not null, -- sha256 over the dbt project's files
    tested boolean not null, -- the data tests ran too
    started_at timestamptz not null,
    finished_at timestamptz not null,
    primary key (build_id, pass, kind, model)
);
create index builds_finished_at on headrace.builds (finished_at);
