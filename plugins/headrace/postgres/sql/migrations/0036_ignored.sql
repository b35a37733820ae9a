-- records that the condition of their dataset, `where`, leaves out: they are counted, so that the sums still prove that
-- every offset of a range was seen
alter table headrace.batches add column if not exists ignored bigint not null default 0;
alter table headrace.totals add column if not exists ignored bigint not null default 0;

do $$
declare
    found record;
begin
    for found in
        select conname
        from pg_catalog.pg_constraint
        where
            conrelid = 'headrace.batches'::regclass
            and contype = 'c'
            and pg_catalog.pg_get_constraintdef(oid) like '%tombstones%'
    loop
        execute format('alter table headrace.batches drop constraint %I', found.conname);
    end loop;
end
$$;

alter table headrace.batches
add constraint batches_counts check (least(staged, dead, tombstones, empty, ignored, bytes) >= 0),
add constraint batches_sum check (
    kind not in ('drain', 'load', 'replace')
    or end_offset - start_offset = staged + dead + tombstones + empty + ignored
);
