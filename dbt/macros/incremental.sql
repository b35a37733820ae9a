{#
    dbt's incremental materialization with one difference: dbt queries the columns of the two tables four times for each
    model, each time in a new context of all macros, which took a third of a small build. Here one statement compares
    them. A model whose columns differ from its table's fails (on_schema_change: fail) and needs a full refresh; other
    values of on_schema_change are refused.
#}
{% materialization incremental, adapter='postgres' %}

    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set temp_relation = make_temp_relation(target_relation) -%}
    {%- set intermediate_relation = make_intermediate_relation(target_relation) -%}
    {%- set backup_relation_type = 'table' if existing_relation is none else existing_relation.type -%}
    {%- set backup_relation = make_backup_relation(target_relation, backup_relation_type) -%}
    {%- set is_anew = existing_relation is none or existing_relation.is_view or should_full_refresh() -%}
    {%- set is_swapped = is_anew and existing_relation is not none -%}

    {#- drops leftovers of an earlier run, before the transaction -#}
    {%- set preexisting_intermediate_relation = load_cached_relation(intermediate_relation) -%}
    {%- set preexisting_backup_relation = load_cached_relation(backup_relation) -%}
    {{ drop_relation_if_exists(preexisting_intermediate_relation) }}
    {{ drop_relation_if_exists(preexisting_backup_relation) }}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if is_anew -%}
        {%- set built_relation = intermediate_relation if is_swapped else target_relation -%}
        {%- set build_sql = get_create_table_as_sql(False, built_relation, sql) -%}
    {%- else -%}
        {%- do run_sql(get_create_table_as_sql(True, temp_relation, sql)) -%}
        {%- set strategy = adapter.get_incremental_strategy_macro(context, config.require('incremental_strategy')) -%}
        {%- set build_sql = strategy({
            'target_relation': target_relation,
            'temp_relation': temp_relation,
            'unique_key': config.require('unique_key'),
            'dest_columns': columns_of_both(temp_relation, target_relation),
        }) -%}
    {%- endif -%}

    {%- call statement('main') -%}
        {{ build_sql }}
    {%- endcall -%}

    {%- if is_anew -%}
        {%- do create_indexes(built_relation) -%}
        {#- a publication for all tables would refuse every update and delete of a table without a primary key -#}
        {%- do run_sql('alter table ' ~ built_relation.render() ~ ' replica identity full') -%}
    {%- endif -%}
    {%- if is_swapped -%}
        {%- if not existing_relation.is_view -%}
            {%- do keep_rights(target_relation, intermediate_relation) -%}
        {%- endif -%}
        {%- do adapter.rename_relation(target_relation, backup_relation) -%}
        {%- if not existing_relation.is_view -%}
            {%- do refuse_dependents(backup_relation, target_relation) -%}
        {%- endif -%}
        {%- do adapter.rename_relation(intermediate_relation, target_relation) -%}
    {%- endif -%}

    {%- do apply_grants(target_relation, config.get('grants'), should_revoke=should_revoke(existing_relation, is_swapped)) -%}
    {%- do persist_docs(target_relation, model) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}

    {%- if is_swapped -%}
        {%- do adapter.drop_relation(backup_relation) -%}
    {%- endif -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{# The columns of a model's new rows, which must be those of its table, in any order. #}
{% macro columns_of_both(temp_relation, target_relation) -%}
    {%- set sql -%}
        select
            coalesce(made.attname, kept.attname) as name,
            -- numeric(15,2) would round the model's numeric
            format_type(made.atttypid, case when kept.atttypmod <> -1 then made.atttypmod end) as made_type,
            format_type(kept.atttypid, nullif(kept.atttypmod, -1)) as kept_type
        from (
            select attname, atttypid, atttypmod, attnum
            from pg_attribute
            where attrelid = {{ literal('pg_temp.' ~ adapter.quote(temp_relation.identifier)) }}::regclass and attnum > 0
        ) as made
        full join (
            select attname, atttypid, atttypmod
            from pg_attribute
            where attrelid = {{ literal(target_relation.include(database=false)) }}::regclass and attnum > 0 and not attisdropped
        ) as kept using (attname)
        order by made.attnum
    {%- endset -%}
    {%- set columns = fetch_rows(sql) -%}
    {%- for column in columns if column.made_type != column.kept_type -%}
        {%- do exceptions.raise_compiler_error(
            target_relation.schema ~ '.' ~ target_relation.identifier ~ '.' ~ column.name ~ ': found ' ~ (column.kept_type or 'no column') ~ ', expected '
            ~ (column.made_type or 'no column') ~ ' as the model has it; nothing was changed; build it from scratch: dbt run --full-refresh '
            ~ '--select ' ~ target_relation.identifier ~ '+'
        ) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}
