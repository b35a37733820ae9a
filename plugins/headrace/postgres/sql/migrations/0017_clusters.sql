-- The Kafka cluster that a generation was read from: another one at the same address is refused by its id. Null for
-- sources without one, and for older generations until their next plan.
alter table headrace.generations add column if not exists cluster_id text;
