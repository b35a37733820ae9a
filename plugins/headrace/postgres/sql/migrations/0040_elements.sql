-- of a dataset with children: how many elements of each a batch staged, {"items": 3}; null where it staged no elements
alter table headrace.batches add column if not exists elements jsonb;
