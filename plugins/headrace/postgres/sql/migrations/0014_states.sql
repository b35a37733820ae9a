-- What failed, and until when it counts.

-- Drains that failed: one line per partition that the drain was to read up to end_offset. It is over as soon as that is committed, by
-- whatever run, or the generation is closed: nothing has to be deleted for it.
create table headrace.failures (
    dataset text not null,
    partition integer not null,
    generation integer not null,
    end_offset bigint not null,
    error text not null,
    failed_at timestamptz not null default clock_timestamp(),
    primary key (dataset, partition)
);

-- Of a mapped task, which one: Airflow's address of it has it. -1 for a task that is not mapped; null for lines that
-- were written before this column, and by the command line.
alter table headrace.batches add column if not exists map_index integer;

-- the last whole build, and what failed since: a follower adds thousands of lines a day to find them among
create index builds_whole on headrace.builds (finished_at) where selection is null;
create index builds_failed on headrace.builds (finished_at) where status in ('error', 'failed tests');
