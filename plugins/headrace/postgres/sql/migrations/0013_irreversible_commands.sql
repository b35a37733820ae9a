-- What commands that cannot be undone leave in the ledger, and which content of which file was loaded last.

-- in words: what was given up, or why it was needed
alter table headrace.batches add column if not exists note text;
alter table headrace.batches drop constraint batches_kind_check;
alter table headrace.batches add constraint batches_kind_check
check (kind in ('drain', 'load', 'replay', 'reload', 'adopt', 'accept_loss', 'reset'));

-- The newest generation tells only the newest load. A file that is as it was when it was last loaded is not loaded over
-- a correction that came from another file.
create table headrace.loaded_files (
    dataset text not null references headrace.datasets,
    path text not null, -- below the data directory, or absolute
    sha256 text not null,
    generation integer not null,
    loaded_at timestamptz not null default clock_timestamp(),
    primary key (dataset, path),
    foreign key (dataset, generation) references headrace.generations
);

insert into headrace.loaded_files (dataset, path, sha256, generation, loaded_at)
select distinct on (g.dataset, g.topic)
    g.dataset,
    g.topic,
    g.topic_id,
    g.generation,
    g.opened_at
from headrace.generations as g
where exists (
    select from headrace.batches as b where b.dataset = g.dataset and b.generation = g.generation and b.kind = 'load'
)
order by g.dataset asc, g.topic asc, g.generation desc;
