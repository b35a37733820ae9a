-- Dead letters that are known: they are kept and can be replayed, and are no problem any more; later ones are.
create table headrace.acknowledgements (
    acknowledgement_id uuid primary key,
    dataset text not null,
    reason text, -- only dead letters of this reason; null: of any
    dead_letters bigint not null check (dead_letters > 0),
    why text not null,
    acknowledged_by text not null, -- user@host of the command
    acknowledged_login text not null default session_user,
    acknowledged_at timestamptz not null default clock_timestamp()
);

alter table headrace.dead_letters
add column if not exists acknowledgement_id uuid references headrace.acknowledgements;
create index dead_letters_acknowledged on headrace.dead_letters (dataset)
where acknowledgement_id is not null and replayed_by is null;
