-- Dead letters are an outbox: those of datasets that declare a dead-letter topic are sent there behind their batch.

alter table headrace.dead_letters
add column published_at timestamptz; -- when the broker acknowledged it; null: not sent, or sent and not yet marked

create index dead_letters_unpublished on headrace.dead_letters (dataset, generation, partition, "offset")
where published_at is null;
