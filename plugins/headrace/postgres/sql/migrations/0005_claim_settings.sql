-- What a model was built with, where its rows depend on settings: with others it refuses until a full refresh.

alter table headrace.claims
add column settings jsonb not null default '{}';
