{#
    Claims the batches that a model has not built yet. A model has one line, quoted so that it renders at run time
    (dbt compiles a model before its hooks run):

        pre_hook="{{ claim('jobs') }}"                         a model that reads staging
        pre_hook="{{ claim(ref('jobs'), ref('users')) }}"      a model that reads other models

        pre_hook="{{ claim('telemetry', settings=thresholds()) }}"   ... whose rows depend on settings: a build with other settings is refused

    The claim advances in the model's own transaction: it commits with the model's rows or rolls back with them.
    READ COMMITTED is required: each statement below must see everything committed before it began.
#}
{% macro claim() -%}
    {%- if execute -%}
        {%- do take_model_lock() -%}
        {%- if not is_incremental() -%}
            {%- do clear_the_way() -%}
        {%- endif -%}
        {%- if not is_partial_run() -%}
            {%- set settings = tojson(kwargs.get('settings', {})) -%}
            {%- set ranges = read_ranges(varargs, settings) -%}
            {%- set from_zero = is_incremental() and (ranges | selectattr('is_stale') | list | length > 0) -%}
            {%- if from_zero -%}
                {%- do run_sql('delete from ' ~ this.render()) -%}
                {%- do delete_claims() -%}
            {%- endif -%}
            {%- do raise_claims(ranges, settings, is_anew=from_zero or not is_incremental()) -%}
            {%- if is_incremental() -%}
                {%- for range in ranges if range.to_seq is not none -%}
                    {%- do stage_claimed_keys(range.dataset, 0 if from_zero else range.from_seq, range.to_seq, from_zero) -%}
                {%- endfor -%}
            {%- endif -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{# The claimed keys of a dataset, in a model's SQL: a temp table whose columns are the dataset's key. #}
{% macro claimed(dataset) -%}
    {%- if execute and is_partial_run() -%}
        (select {{ key_of(dataset) | join(', ') }} from {{ staging_table(dataset) }} where false)
    {%- else -%}
        pg_temp.{{ exactly('_claimed_' ~ dataset) }}
    {%- endif -%}
{%- endmacro %}


{#
    SQL that is true if two models have built the same batches and the second has built the first's current state.
    Tests that compare models run only then: at other times either may be a batch ahead.
#}
{% macro claims_equal(upstream, downstream) -%}
    (
        select count(*) > 0 and bool_and(
            downstream.to_seq = upstream.to_seq
            and downstream.seen ->> {{ literal(upstream.schema ~ '.' ~ upstream.identifier) }} = upstream.built::text
        )
        from headrace.claims as upstream
        inner join headrace.claims as downstream on upstream.dataset = downstream.dataset
        where
            (upstream.schema, upstream.identifier) = ({{ literal(upstream.schema) }}, {{ literal(upstream.identifier) }})
            and (downstream.schema, downstream.identifier)
            = ({{ literal(downstream.schema) }}, {{ literal(downstream.identifier) }})
    )
{%- endmacro %}


{# SQL that is true if a model has built every batch of a dataset in the ledger. #}
{% macro has_built_all(model, dataset) -%}
    exists (
        select from headrace.claims
        where
            (schema, identifier, dataset)
            = ({{ literal(model.schema) }}, {{ literal(model.identifier) }}, {{ literal(dataset) }})
            and to_seq = (select max(seq) from headrace.batches where dataset = {{ literal(dataset) }})
    )
{%- endmacro %}


{# --empty and --sample read only part of the rows, so they must claim nothing. #}
{% macro is_partial_run() -%}
    {{ return((flags.EMPTY | default(false)) or (flags.SAMPLE | default(none)) is not none) }}
{%- endmacro %}


{#
    One transaction at a time builds a model. A profile that would commit the claim without the rows is refused.

    synchronous_commit is off: a crash of the server may lose the last claims together with their rows and everything
    built from them; the next build repeats them. Waiting for the disk took a third of the time of a small model. The
    connection check ends a backend whose client was killed; otherwise it would keep the lock until its statement ends.
#}
{% macro take_model_lock() -%}
    {%- do run_sql(
        session_parameters() ~ " select set_config('headrace.claiming', '" ~ invocation_id ~ "', true), set_config('synchronous_commit', 'off', true), "
        ~ "set_config('client_connection_check_interval', '5s', true)"
    ) -%}
    {%- set session = fetch_rows(
        lock_row(this.schema ~ '.' ~ this.identifier)
        ~ "; select current_setting('headrace.claiming', true) as claiming, current_setting('transaction_isolation') as isolation, "
        ~ "headrace.foreign_object(" ~ literal(this.schema) ~ ") as foreign_object, session_user as user_name"
    )[0] -%}
    {%- if session.foreign_object -%}
        {%- do exceptions.raise_compiler_error(
            this.schema ~ ': found ' ~ session.foreign_object ~ ', expected that this schema belongs to ' ~ session.user_name
            ~ ', who may do more: what the other role put into it would run with more rights than it has; nothing was'
            ~ ' changed; build as a login in headrace_dbt (HEADRACE_DBT_DSN)'
        ) -%}
    {%- endif -%}
    {%- if target.get('autocommit') or session.claiming != invocation_id -%}
        {%- do exceptions.raise_compiler_error(
            this.render() ~ ": found a connection with autocommit, expected one transaction for the claim and the rows;"
            ~ " remove `autocommit` from the profile"
        ) -%}
    {%- endif -%}
    {%- if session.isolation != 'read committed' -%}
        {%- do exceptions.raise_compiler_error(
            this.render() ~ ": found isolation level '" ~ session.isolation ~ "', expected 'read committed': claims are"
            ~ " read after a lock; remove default_transaction_isolation from the role, the database or PGOPTIONS"
        ) -%}
    {%- endif -%}
{%- endmacro %}


{# Two builds that replace a function at once fail with `tuple concurrently updated`: the second waits here. #}
{% macro take_turns() -%}
    {{ session_parameters() }}
    {{ lock_row('functions of ' ~ this.schema) }}
{%- endmacro %}


{#
    Statements that lock a row of headrace.model_locks until the end of the transaction. Not an advisory lock: any login
    could hold that. If the row is new, the second transaction waits for the first one's insert.
#}
{% macro lock_row(name) -%}
    insert into headrace.model_locks (name) values ({{ literal(name) }}) on conflict do nothing;
    select from headrace.model_locks where name = {{ literal(name) }} for update
{%- endmacro %}


{#
    Before a model is built from scratch: deletes its claims, and drops relations that another invocation created after
    this one listed them. Otherwise two concurrent first builds fail with `relation already exists`, two concurrent full
    refreshes with `__dbt_backup already exists`.
#}
{% macro clear_the_way() -%}
    {%- for node in graph.nodes.values() if node.resource_type == 'model' and '__dbt_' in node.alias -%}
        {%- do exceptions.raise_compiler_error(
            node.name ~ ': found __dbt_ in the name of a model, expected a name without: dbt builds, and drops, other'
            ~ ' models under such names; rename it'
        ) -%}
    {%- endfor -%}
    {%- do delete_claims() -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- if existing is none -%}
        {%- do run_sql('drop table if exists ' ~ this.render()) -%}
    {%- elif not existing.is_view -%}
        {%- do refuse_dependents(existing, this) -%}
    {%- endif -%}
    {%- do run_sql('drop table if exists ' ~ make_backup_relation(this.incorporate(type='table'), 'table').render() ~ ' cascade') -%}
    {#- the rename waits for current readers, and new readers wait for the rename: hence a lock timeout -#}
    {%- do run_sql("set local lock_timeout = '15s'") -%}
{%- endmacro %}


{% macro delete_claims() -%}
    {%- do run_sql(
        'delete from headrace.claims where (schema, identifier) = (' ~ literal(this.schema) ~ ', ' ~ literal(this.identifier) ~ ')'
    ) -%}
{%- endmacro %}


{#
    The range (from_seq, to_seq] that can be claimed, for each dataset. to_seq is the ledger's newest batch for a dataset,
    and the lowest claim of the upstreams for models. A range is stale if the model must start from zero: it never
    claimed the dataset, or an upstream or the ledger was built from scratch. Rows that were built with other settings
    stay unchanged: only a full refresh rebuilds them.
#}
{% macro read_ranges(upstreams, settings) -%}
    {%- set sql -%}
        with

        available as (
            {% for upstream in upstreams %}
                {%- if not loop.first %}union all{% endif %}
                {%- if upstream is string %}
            select
                {{ literal(upstream) }} as dataset,
                'headrace.datasets' as upstream,
                (select built::text from headrace.datasets where dataset = {{ literal(upstream) }}) as built,
                (select coalesce(max(seq), 0) from headrace.batches where dataset = {{ literal(upstream) }}) as to_seq
                {%- else %}
            select dataset, schema || '.' || identifier as upstream, built::text as built, to_seq
            from headrace.claims
            where (schema, identifier) = ({{ literal(upstream.schema) }}, {{ literal(upstream.identifier) }})
                {%- endif %}
            {% endfor %}
        ),

        available_ranges as (
            select dataset, min(to_seq) as to_seq, jsonb_object_agg(upstream, built) as seen
            from available
            group by dataset
        ),

        own_claims as (
            select dataset, to_seq, seen, settings
            from headrace.claims
            where (schema, identifier) = ({{ literal(this.schema) }}, {{ literal(this.identifier) }})
        )

        select
            dataset,
            own_claims.to_seq as from_seq,
            available_ranges.to_seq as to_seq,
            available_ranges.seen::text as seen,
            case when own_claims.settings <> {{ literal(settings) }}::jsonb then own_claims.settings::text end as other_settings,
            coalesce(
                own_claims.to_seq > available_ranges.to_seq or own_claims.seen <> available_ranges.seen, true
            ) as is_stale
        from available_ranges
        full join own_claims using (dataset)
        order by dataset
    {%- endset -%}
    {%- set ranges = [] -%}
    {%- set seen = [] -%}
    {%- for row in fetch_rows(sql) -%}
        {%- if row.other_settings -%}
            {%- do exceptions.raise_compiler_error(
                this.render() ~ ': found the settings ' ~ settings ~ ', expected those that it was built with, '
                ~ row.other_settings ~ '; restore them, or build it from scratch: dbt run --full-refresh --select '
                ~ this.identifier ~ '+'
            ) -%}
        {%- endif -%}
        {%- do seen.append(row.seen or '') -%}
        {%- do ranges.append({
            'dataset': row.dataset,
            'from_seq': none if row.from_seq is none else row.from_seq | int,
            'to_seq': none if row.to_seq is none else row.to_seq | int,
            'seen': row.seen,
            'is_stale': row.is_stale,
        }) -%}
    {%- endfor -%}
    {%- for upstream in upstreams if upstream is not string -%}
        {%- if ('"' ~ upstream.schema ~ '.' ~ upstream.identifier ~ '"') not in seen | join(' ') -%}
            {%- do exceptions.raise_compiler_error(
                this.render() ~ ': found no claim of ' ~ upstream.schema ~ '.' ~ upstream.identifier ~ ', expected that it has been'
                ~ ' built; run dbt build --select +' ~ this.identifier
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(ranges) }}
{%- endmacro %}


{# A claim never moves back. If there is no new batch, nothing is written. #}
{% macro raise_claims(ranges, settings, is_anew) -%}
    {%- for range in ranges if range.to_seq is not none and (is_anew or range.from_seq != range.to_seq) -%}
        {%- set sql -%}
            insert into headrace.claims as claims (schema, identifier, dataset, to_seq, seen, settings)
            values (
                {{ literal(this.schema) }},
                {{ literal(this.identifier) }},
                {{ literal(range.dataset) }},
                {{ range.to_seq }},
                {{ literal(range.seen) }},
                {{ literal(settings) }}
            )
            on conflict (schema, identifier, dataset) do update
            set
                to_seq = greatest(claims.to_seq, excluded.to_seq),
                -- when it reached to_seq: a build without new batches does not change the time
                claimed_at = case
                    when excluded.to_seq > claims.to_seq then excluded.claimed_at else claims.claimed_at
                end
        {%- endset -%}
        {%- do run_sql(sql) -%}
    {%- endfor -%}
{%- endmacro %}


{#
    The distinct keys of the claimed batches, in a temp table whose size the planner knows: a model that joined the
    ledger itself was planned for 138,655 rows instead of 200, and took 2.05 s instead of 0.38 s. Rows that a reload
    replaced belong to two batches: the one that staged them and the one that replaced them.
#}
{% macro stage_claimed_keys(dataset, from_seq, to_seq, from_zero) -%}
    {%- set columns = [] -%}
    {%- for column in key_of(dataset) -%}
        {%- do columns.append('staged.' ~ column) -%}
    {%- endfor -%}
    {%- set key = columns | join(', ') -%}
    {%- set has_key = columns | join(' is not null and ') ~ ' is not null' -%}
    {%- set sql -%}
        create temporary table {{ exactly('_claimed_' ~ dataset) }} on commit drop as
        {% if from_zero -%}
        select {{ key }} from {{ staging_table(dataset) }} as staged where {{ has_key }}
        union
        select {{ key }} from {{ replaced_table(dataset) }} as staged where {{ has_key }}
        {%- else -%}
        with

        claimed_batches as materialized (
            select batch_id, generation, partition, start_offset, end_offset
            from headrace.batches
            where dataset = {{ literal(dataset) }} and seq > {{ from_seq }} and seq <= {{ to_seq }}
        )

        -- one ledger line at a time, independent of the planner: each names a range of the primary key
        select {{ key }}
        from claimed_batches as line
        cross join lateral (
            select *
            from {{ staging_table(dataset) }}
            where
                _generation = line.generation
                and _partition = line.partition
                and _offset >= line.start_offset
                and _offset < line.end_offset
                and _batch_id = line.batch_id
            offset 0
        ) as staged
        where {{ has_key }}
        union
        select {{ key }}
        from claimed_batches as line
        inner join {{ replaced_table(dataset) }} as staged on line.batch_id = staged._batch_id
        where {{ has_key }}
        union
        select {{ key }}
        from claimed_batches as line
        inner join {{ replaced_table(dataset) }} as staged on line.batch_id = staged._replaced_by
        where {{ has_key }}
        {%- endif %}
    {%- endset -%}
    {%- do run_sql(sql) -%}
    {%- do run_sql('analyze pg_temp.' ~ exactly('_claimed_' ~ dataset)) -%}
{%- endmacro %}


{# The key columns of a dataset, from the meta of its source in models/staging. #}
{% macro key_of(dataset) -%}
    {%- if not execute -%}
        {{ return([dataset ~ '_key']) }}
    {%- endif -%}
    {%- for source in graph.sources.values() if source.source_name == 'staging' and source.name == dataset -%}
        {{ return(columns_of(source.config.meta.get('key') or source.meta.get('key'))) }}
    {%- endfor -%}
    {%- do exceptions.raise_compiler_error(
        "claim('" ~ dataset ~ "'): found no source staging." ~ dataset ~ ', expected one, with `config: {meta: {key: <column>}}`'
        ~ ' unless every record is an entity of its own; add it to the YAML of its stg_ model in models/staging/'
    ) -%}
{%- endmacro %}


{# A key is a column or a list of them, quoted. Without a key every record is an entity, identified by its coordinates. #}
{% macro columns_of(key) -%}
    {%- if not key -%}
        {{ return(['_generation', '_partition', '_offset']) }}
    {%- endif -%}
    {%- set names = [] -%}
    {%- for name in ([key] if key is string else key) -%}
        {%- do names.append(quoted(name)) -%}
    {%- endfor -%}
    {{ return(names) }}
{%- endmacro %}


{% macro literal(text) -%}
    '{{ text | string | replace("'", "''") }}'
{%- endmacro %}


{% macro run_sql(sql) -%}
    {%- call statement() -%}{{ sql }}{%- endcall -%}
{%- endmacro %}


{% macro fetch_rows(sql) -%}
    {%- call statement('fetch_rows', fetch_result=true) -%}{{ sql }}{%- endcall -%}
    {{ return(load_result('fetch_rows').table.rows) }}
{%- endmacro %}
