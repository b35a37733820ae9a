-- What failed for the same reason, since when, and in which run: the page shows one card for a cause, with its age and
-- a link to the log. All null for lines from before these columns. cause: what several datasets share, for example
-- "Kafka at kafka:9092 does not answer"; null for an error of the dataset's own.
alter table headrace.observations
add column if not exists cause text,
add column if not exists error_since timestamptz,
add column if not exists dag_id text,
add column if not exists run_id text,
add column if not exists task_id text,
add column if not exists try_number integer,
add column if not exists map_index integer;

alter table headrace.failures
add column if not exists cause text,
add column if not exists failing_since timestamptz,
add column if not exists dag_id text,
add column if not exists run_id text,
add column if not exists task_id text,
add column if not exists try_number integer,
add column if not exists map_index integer;

-- behind: the models whose failure is why this one was skipped
alter table headrace.builds
add column if not exists behind text[] not null default '{}',
add column if not exists dag_id text,
add column if not exists run_id text,
add column if not exists task_id text,
add column if not exists try_number integer,
add column if not exists map_index integer;
