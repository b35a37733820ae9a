-- which schema of a registry a rejected record named: its dead letter is replayed when the registry has it
alter table headrace.dead_letters add column schema_id integer;
