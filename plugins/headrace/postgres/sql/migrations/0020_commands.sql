-- The command that mends what failed, as the arguments of `headrace`. It is not read out of the error's text, which
-- quotes names and messages of others. Null for errors that name none, and for those from before this column.
alter table headrace.observations add column if not exists command text[];
alter table headrace.failures add column if not exists command text[];
