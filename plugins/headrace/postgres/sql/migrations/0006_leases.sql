-- Who follows a dataset: while a lease is fresh, scheduled runs leave the dataset to its holder. Not a lock: two that
-- drain at once are kept apart by the checkpoint.

create table headrace.leases (
    dataset text primary key,
    holder uuid not null, -- one follower
    holder_name text not null, -- for people: where it runs
    taken_at timestamptz not null default clock_timestamp(),
    renewed_at timestamptz not null default clock_timestamp(),
    lapses_at timestamptz not null
);
