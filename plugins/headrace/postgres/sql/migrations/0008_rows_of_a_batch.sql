-- A batch's rows are found by the range in the primary key that its ledger line names. The index of their own that
-- staging tables had until now took a tenth of a drain's time.
do $$
declare
    found regclass;
begin
    for found in
        select indexes.indexrelid::regclass
        from headrace.datasets
        inner join pg_index as indexes on indexes.indrelid = to_regclass(format('staging.%I', datasets.dataset))
        inner join pg_attribute as columns
            on indexes.indrelid = columns.attrelid and indexes.indkey[0] = columns.attnum
        where indexes.indnatts = 1 and not indexes.indisunique and columns.attname = '_batch_id'
    loop
        execute format('drop index %s', found);
    end loop;
end
$$;
