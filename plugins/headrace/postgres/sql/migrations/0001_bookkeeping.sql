-- What the loader knows of itself: datasets, generations, checkpoints, the ledger, dead letters.

create table headrace.datasets (
    dataset text primary key check (dataset ~ '^[a-z][a-z0-9_]{0,40}$'),
    last_seq bigint not null default 0, -- moved only by the last statements of a batch's transaction: gap-free
    built uuid not null default gen_random_uuid(), -- new at each reset: whatever was built on it starts from zero
    created_at timestamptz not null default clock_timestamp()
);

create table headrace.generations (
    dataset text not null references headrace.datasets,
    generation integer not null check (generation >= 1),
    topic text not null, -- a stream's key or a file's name for sources that are not topics
    topic_id text not null, -- KIP-516; the sha256 of a file
    is_open boolean not null default true,
    opened_at timestamptz not null default clock_timestamp(),
    closed_at timestamptz,
    primary key (dataset, generation),
    check (is_open = (closed_at is null))
);
create unique index generations_one_open on headrace.generations (dataset) where is_open;

create table headrace.checkpoints (
    dataset text not null,
    generation integer not null,
    partition integer not null check (partition >= 0),
    next_offset bigint not null check (next_offset >= 0), -- the first offset that has not been read
    source_position text, -- where a source has a position of its own: a Redis stream's entry id
    updated_at timestamptz not null default clock_timestamp(),
    primary key (dataset, generation, partition),
    foreign key (dataset, generation) references headrace.generations
);

create table headrace.batches (
    batch_id uuid primary key,
    dataset text not null,
    seq bigint not null,
    generation integer not null,
    partition integer not null,
    start_offset bigint not null,
    end_offset bigint not null,
    staged bigint not null default 0,
    dead bigint not null default 0,
    tombstones bigint not null default 0,
    empty bigint not null default 0, -- offsets without a record: compaction holes, markers, aborted records
    bytes bigint not null default 0, -- of keys and values
    first_record_at timestamptz,
    last_record_at timestamptz,
    started_at timestamptz not null,
    committed_at timestamptz not null default clock_timestamp(),
    kind text not null check (kind in ('drain', 'load', 'replay', 'reload', 'adopt', 'accept_loss')),
    dag_id text,
    run_id text,
    task_id text,
    try_number integer,
    unique (dataset, seq),
    foreign key (dataset, generation) references headrace.generations,
    check (start_offset >= 0 and end_offset >= start_offset),
    check (least(staged, dead, tombstones, empty, bytes) >= 0),
    check (kind not in ('drain', 'load') or end_offset - start_offset = staged + dead + tombstones + empty)
);
-- the chain of a partition cannot fork: two lines that move a checkpoint never start at the same offset
create unique index batches_chain on headrace.batches (dataset, generation, partition, start_offset)
where kind in ('drain', 'load', 'accept_loss') and end_offset > start_offset;

create table headrace.dead_letters (
    dataset text not null,
    generation integer not null,
    partition integer not null,
    "offset" bigint not null,
    key bytea,
    value bytea,
    headers jsonb, -- [{"key": ..., "value": ...}]; "base64" in place of "value" where it is not text
    "timestamp" timestamptz,
    reason text not null check (reason ~ '^[a-z][a-z0-9_]*$'),
    detail text not null,
    json_path text,
    batch_id uuid not null references headrace.batches deferrable initially deferred,
    replayed_by uuid references headrace.batches deferrable initially deferred,
    primary key (dataset, generation, partition, "offset")
);
create index dead_letters_reason on headrace.dead_letters (dataset, reason) where replayed_by is null;
create index dead_letters_batch on headrace.dead_letters (batch_id);

-- what plan and follow last saw at the source, in transactions of their own
create table headrace.observations (
    dataset text not null references headrace.datasets,
    partition integer not null,
    log_start_offset bigint,
    end_offset bigint, -- the last stable offset
    high_watermark bigint,
    error text,
    observed_at timestamptz not null default clock_timestamp(),
    primary key (dataset, partition)
);
