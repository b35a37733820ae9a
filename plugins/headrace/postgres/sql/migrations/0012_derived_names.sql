-- What is made for a dataset has a name that no dataset can have: a dataset X_replaced dropped the table of the rows that
-- reloads of a dataset X had replaced, and one named like an index of X could not be made.
do $$
declare
    found record;
    statement text;
begin
    -- of tables called <dataset>_replaced, those with this column are no dataset's own: no field begins with an underscore
    for found in
        select datasets.dataset, tables.oid::regclass as replaced
        from headrace.datasets
        inner join pg_class as tables
            on tables.relname = datasets.dataset || '_replaced' and tables.relnamespace = 'staging'::regnamespace
        inner join pg_attribute as columns on columns.attrelid = tables.oid and columns.attname = '_replaced_by'
        where tables.relkind = 'r' and to_regclass(format('staging.%I', '_replaced_' || datasets.dataset)) is null
    loop
        execute format('alter table %s rename to %I', found.replaced, '_replaced_' || found.dataset);
    end loop;

    for statement in
        with indexes as (
            select
                datasets.dataset,
                tables.relname = datasets.dataset as is_own,
                indexes.indexrelid::regclass as name,
                indexes.indisprimary as is_primary,
                case when indexes.indnatts = 1 and not indexes.indisunique then columns.attname end as column_name
            from headrace.datasets
            inner join pg_class as tables
                on tables.relname in (datasets.dataset, '_replaced_' || datasets.dataset)
                and tables.relnamespace = 'staging'::regnamespace
            inner join pg_index as indexes on indexes.indrelid = tables.oid
            inner join pg_attribute as columns
                on columns.attrelid = indexes.indrelid and columns.attnum = indexes.indkey[0]
        ),

        renamed as (
            select distinct on (own.dataset, own.new_name) own.name, own.new_name
            from (
                select
                    indexes.dataset,
                    indexes.name,
                    case
                        when indexes.is_own and indexes.is_primary then '_pkey_'
                        when indexes.is_own and keys.column_name is not null then '_key_'
                        when indexes.is_own then null
                        when indexes.column_name = '_replaced_by' then '_rby_'
                        when indexes.column_name = '_batch_id' then '_rbatch_'
                        when keys.column_name is not null then '_rkey_'
                    end || indexes.dataset as new_name
                from indexes
                -- the one column that both tables have an index of is the key
                left join indexes as keys
                    on indexes.dataset = keys.dataset
                    and indexes.column_name = keys.column_name
                    and indexes.is_own <> keys.is_own
            ) as own
            where own.new_name is not null and to_regclass(format('staging.%I', own.new_name)) is null
            order by own.dataset, own.new_name, own.name
        )

        select format('alter index %s rename to %I', name, new_name) from renamed
    loop
        execute statement;
    end loop;
end
$$;
