-- what is masked in a dead letter's key, value and headers, each field with how; null: they are the record's own
alter table headrace.dead_letters add column if not exists masked text[];

-- tells the key of a dataset's masks from another one, without telling the key; null: none was used yet
alter table headrace.datasets add column if not exists masking_key_id text;
