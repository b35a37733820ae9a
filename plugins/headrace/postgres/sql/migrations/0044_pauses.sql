-- Who paused a dataset, when and why, and who resumed it. Rows stay: they are the history. Pauses are no lines of the
-- ledger, whose seq says what marts have to build.
create table headrace.pauses (
    pause_id bigint generated always as identity primary key,
    dataset text not null, -- no foreign key: a pause waits for no transaction that holds the dataset's row
    paused_at timestamptz not null default clock_timestamp(),
    paused_by text not null, -- for people: user and host of the command
    paused_login text not null default session_user,
    why text not null check (why ~ '\S' and length(why) <= 1000),
    resumed_at timestamptz,
    resumed_by text,
    resumed_login text,
    check ((resumed_at is null) = (resumed_by is null) and (resumed_at is null) = (resumed_login is null))
);

create unique index pauses_open on headrace.pauses (dataset) where resumed_at is null;
