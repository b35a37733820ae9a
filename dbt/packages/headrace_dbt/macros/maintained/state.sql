{# What the database knows of a model and its upstreams, in the build's snapshot, as one value. #}
{% macro read_state(relation, upstreams) -%}
    {%- set model = "(" ~ headrace_dbt.literal(relation.schema) ~ ", " ~ headrace_dbt.literal(relation.identifier) ~ ")" -%}
    {%- set table = headrace_dbt.literal(relation.include(database=false)) -%}
    {%- set sql -%}
        select json_build_object(
            'building', current_setting('headrace.building', true),
            'isolation', current_setting('transaction_isolation'),
            'user_name', session_user,
            'foreign_object', coalesce(
                headrace.foreign_object({{ headrace_dbt.literal(relation.schema) }}),
                headrace.foreign_object({{ headrace_dbt.literal(headrace_dbt.log_schema(relation)) }})
            ),
            'clock', (extract(epoch from clock_timestamp()) * 1000000)::bigint,
            'oid', to_regclass({{ table }})::oid::text,
            'relkind', (select relkind from pg_class where oid = to_regclass({{ table }})),
            'not_null', (
                select coalesce(json_agg(attname), '[]')
                from pg_attribute as a
                where attrelid = to_regclass({{ table }}) and attnum > 0 and {{ headrace_dbt.is_not_null('a') }}
            ),
            'checks', (
                select coalesce(json_agg(conname), '[]')
                from pg_constraint
                where conrelid = to_regclass({{ table }}) and contype = 'c' and conname ~ '_accepted_[0-9a-f]{8}$'
            ),
            -- those made here, and by dbt for other materializations; not those that a foreign key needs
            'indexes', (
                select coalesce(json_agg(c.relname), '[]')
                from pg_index as i
                inner join pg_class as c on i.indexrelid = c.oid
                where
                    i.indrelid = to_regclass({{ table }})
                    and (obj_description(c.oid, 'pg_class') = 'of the config' or c.relname ~ '^[0-9a-f]{32}$')
                    and not exists (select from pg_constraint as o where o.conindid = c.oid)
            ),
            'columns', {{ headrace_dbt.columns_as_json('to_regclass(' ~ table ~ ')') }},
            -- of the log without its own two
            'log_columns', {{ headrace_dbt.columns_as_json('to_regclass(' ~ headrace_dbt.literal(headrace_dbt.log_of(relation)) ~ ')', after=2) }},
            'built', (select to_json(s) from headrace.model_states as s where (s.schema, s.identifier) = {{ model }}),
            'seen', (
                select coalesce(json_object_agg(u.upstream, json_build_object('identity', u.identity, 'position', u.position)), '{}')
                from headrace.model_upstreams as u
                where (u.schema, u.identifier) = {{ model }}
            ),
            'readers', (
                select json_build_object('count', count(*), 'seen', min(u.position::bigint))
                from headrace.model_upstreams as u
                inner join headrace.model_states as s using (schema, identifier)
                where
                    u.kind = 'model'
                    and u.upstream = {{ headrace_dbt.literal(relation.schema ~ '.' ~ relation.identifier) }}
                    and u.identity = to_regclass({{ table }})::oid::text
                    and to_regclass(format('%I.%I', s.schema, s.identifier))::oid = s.table_oid
            ),
            'available', json_build_object(
                {%- for upstream in upstreams %}
                {{ headrace_dbt.literal(upstream.key) }}, ({{ headrace_dbt.available_of(upstream) }}){{ ',' if not loop.last }}
                {%- endfor %}
            )
        )::text
    {%- endset -%}
    {%- set state = headrace_dbt.fetch_json(sql) -%}
    {%- do headrace_dbt.check_session(state) -%}
    {{ return(state) }}
{%- endmacro %}


{# A query of what there is of an upstream: its identity, its newest position, and the floor of its log; null for content. #}
{% macro available_of(upstream) -%}
    {%- set table = headrace_dbt.literal(upstream.relation.include(database=false)) -%}
    {%- if upstream.kind == 'dataset' -%}
        select json_build_object('identity', d.built, 'position', coalesce((
            select max(b.seq) from {{ headrace_dbt.ledger_table('batches') }} as b where b.dataset = d.dataset
        ), 0)::text, 'floor', 0)
        from {{ headrace_dbt.ledger_table('datasets') }} as d
        where d.dataset = {{ headrace_dbt.literal(upstream.relation.identifier) }}
    {%- elif upstream.kind == 'model' -%}
        select json_build_object('identity', s.table_oid::text, 'position', s.build::text, 'floor', s.floor)
        from headrace.model_states as s
        where
            (s.schema, s.identifier)
            = ({{ headrace_dbt.literal(upstream.relation.schema) }}, {{ headrace_dbt.literal(upstream.relation.identifier) }})
            and s.table_oid = to_regclass({{ table }})::oid
            and to_regclass({{ headrace_dbt.literal(headrace_dbt.log_of(upstream.relation)) }}) is not null
    {%- else -%}
        select null::json
    {%- endif -%}
{%- endmacro %}


{# The columns of a table after some as a JSON array of {name, type}, in order; null where there is no table. #}
{% macro columns_as_json(oid, after=0) -%}
    (
        select json_agg(json_build_object(
            'name', a.attname, 'type', format_type(a.atttypid, nullif(a.atttypmod, -1))
        ) order by a.attnum)
        from pg_attribute as a
        where a.attrelid = {{ oid }} and a.attnum > {{ after }} and not a.attisdropped
    )
{%- endmacro %}


{#
    Decides what a build computes: `build.action` is create, whole, grains or nothing.

    The whole table: where its SQL or config changed, it is another table than the one that was built, an upstream is
    another table, another set of upstreams, or its log no longer holds what this model has not seen.
#}
{% macro plan_build(relation, upstreams, sql) -%}
    {%- set state = headrace_dbt.read_state(relation, upstreams) -%}
    {%- set grains = headrace_dbt.grains_of(upstreams, state.columns) -%}
    {%- set built = state.built or {} -%}
    {%- set tests = headrace_dbt.enforced_tests() -%}
    {%- set build = {
        'relation': relation,
        'upstreams': upstreams,
        'state': state,
        'definition': local_md5(sql ~ tojson([config.get('grain'), config.get('touched'), config.get('unique_key'), config.get('indexes'), tests])),
        'tests': tests,
        'settings': tojson(config.get('settings') or {}),
        'unique_key': headrace_dbt.names_of(config.get('unique_key')),
        'grains': grains,
        'former_number': built.get('build', 0),
        'number': [built.get('build', 0) + 1, state.clock if not built else 0] | max,
        'floor': built.get('floor', 0),
        'logged': built.get('logged', 0),
        'is_partial': headrace_dbt.is_partial_run(),
        'changed': [],
        'rows': 0,
    } -%}
    {%- set reasons = headrace_dbt.reasons_for_the_whole(build) -%}
    {%- set is_redefined = reasons | length > 0 -%}
    {%- for upstream in upstreams -%}
        {%- do headrace_dbt.compare_upstream(build, upstream, reasons) -%}
    {%- endfor -%}
    {%- if build.changed and (not grains or built.get('is_distrusted')) -%}
        {%- do reasons.append('no grain') -%}
    {%- endif -%}
    {%- do build.update({
        'action': headrace_dbt.action_of(build, reasons),
        'reasons': reasons,
        'is_redefined': is_redefined or state.relkind != 'r',
    }) -%}
    {%- if build.is_redefined -%}
        {%- do headrace_dbt.check_grains(build) -%}
    {%- endif -%}
    {{ return(build) }}
{%- endmacro %}


{#
    What a build does. With --empty or --sample a table that was built from all rows stays as it is, unless it is to be
    built from scratch: the SELECT runs, and what it returns is discarded.
#}
{% macro action_of(build, reasons) -%}
    {%- if build.state.relkind != 'r' -%}
        {{ return('create') }}
    {%- elif build.is_partial -%}
        {{ return('try' if build.state.built and not should_full_refresh() else 'whole') }}
    {%- endif -%}
    {{ return('whole' if reasons else 'grains' if build.changed else 'nothing') }}
{%- endmacro %}


{# Why a model must be built as a whole, apart from its upstreams. #}
{% macro reasons_for_the_whole(build) -%}
    {%- set built = build.state.built -%}
    {%- set reasons = [] -%}
    {%- if should_full_refresh() -%}
        {%- do reasons.append('full refresh') -%}
    {%- elif built and built.settings != fromjson(build.settings) -%}
        {%- do headrace_dbt.refuse(build.relation, 'found the settings ' ~ build.settings ~ ', expected those that it was built with, '
            ~ tojson(built.settings) ~ '; restore them, or build it from scratch: dbt run --full-refresh --select ' ~ build.relation.identifier ~ '+') -%}
    {%- endif -%}
    {%- if not built -%}
        {%- do reasons.append('no state') -%}
    {%- elif built.table_oid | string != build.state.oid | string or not build.state.log_columns -%}
        {%- do reasons.append('another table') -%}
    {%- elif built.definition != build.definition -%}
        {%- do reasons.append('another definition') -%}
    {%- endif -%}
    {%- if built and build.state.seen.keys() | sort != build.upstreams | map(attribute='key') | sort -%}
        {%- do reasons.append('other upstreams') -%}
    {%- endif -%}
    {{ return(reasons) }}
{%- endmacro %}


{# Compares what there is of an upstream with what the model has seen: adds it to build.changed, or a reason for the whole. #}
{% macro compare_upstream(build, upstream, reasons) -%}
    {%- set available = build.state.available[upstream.key] -%}
    {%- if not available and upstream.kind == 'dataset' -%}
        {%- do headrace_dbt.refuse(build.relation, 'found no dataset ' ~ upstream.relation.identifier ~ ' in headrace.datasets, expected one; run `headrace init`'
            ~ ('; or, if it has the elements of a dataset, write meta: {parent: <dataset>} to its source' if '__' in upstream.relation.identifier else '')) -%}
    {%- elif not available -%}
        {%- set available = {'identity': 'content', 'position': headrace_dbt.content_of(upstream.relation), 'floor': 0} -%}
        {%- do upstream.update({'kind': 'content'}) -%}
    {%- endif -%}
    {%- set seen = build.state.seen.get(upstream.key) or {} -%}
    {%- do upstream.update({'identity': available.identity | string, 'position': available.position, 'seen': seen.get('position')}) -%}
    {%- if seen and seen.identity != upstream.identity -%}
        {%- do reasons.append(upstream.key ~ ' is another one') -%}
    {%- elif seen and seen.position != upstream.position -%}
        {%- do build.changed.append(upstream) -%}
        {%- if upstream.kind == 'content' or (upstream.kind == 'model' and available.floor > seen.position | int) -%}
            {%- do reasons.append(upstream.key ~ ' has no log of what changed') -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}


{# Deletes what a model has seen: its table holds part of the rows. Nothing where the table stays as it was. #}
{% macro forget_state(build) -%}
    {%- if build.action != 'try' -%}
        {%- set model = headrace_dbt.literal(build.relation.schema) ~ ', ' ~ headrace_dbt.literal(build.relation.identifier) -%}
        {%- do headrace_dbt.run_sql(
            'delete from headrace.model_states where (schema, identifier) = (' ~ model ~ ');'
            ~ ' delete from headrace.claims where (schema, identifier) = (' ~ model ~ ')'
        ) -%}
    {%- endif -%}
{%- endmacro %}


{# Writes what this build has seen, in its transaction. #}
{% macro write_state(build) -%}
    {%- set model = headrace_dbt.literal(build.relation.schema) ~ ', ' ~ headrace_dbt.literal(build.relation.identifier) -%}
    {%- call statement('write_state') -%}
        {%- if build.action != 'nothing' %}
        insert into headrace.model_states as kept (
            schema, identifier, table_oid, definition, settings, build, floor, logged, is_distrusted
        )
        values (
            {{ model }},
            to_regclass({{ headrace_dbt.literal(build.relation.include(database=false)) }})::oid,
            {{ headrace_dbt.literal(build.definition) }},
            {{ headrace_dbt.literal(build.settings) }},
            {{ build.number if build.rows else build.former_number or build.number }},
            {{ build.floor }},
            {{ build.logged }},
            false
        )
        on conflict (schema, identifier) do update
        set
            table_oid = excluded.table_oid,
            definition = excluded.definition,
            settings = excluded.settings,
            build = excluded.build,
            floor = excluded.floor,
            logged = excluded.logged,
            is_distrusted = kept.is_distrusted and kept.definition = excluded.definition,
            built_at = excluded.built_at;
        delete from headrace.model_upstreams
        where
            (schema, identifier) = ({{ model }})
            and upstream <> all (array[{% for upstream in build.upstreams %}{{ headrace_dbt.literal(upstream.key) }}{{ ', ' if not loop.last }}{% endfor %}]::text[]);
        {%- for upstream in build.upstreams %}
        insert into headrace.model_upstreams (schema, identifier, upstream, kind, identity, position)
        values (
            {{ model }}, {{ headrace_dbt.literal(upstream.key) }}, {{ headrace_dbt.literal(upstream.kind) }},
            {{ headrace_dbt.literal(upstream.identity) }}, {{ headrace_dbt.literal(upstream.position) }}
        )
        on conflict (schema, identifier, upstream) do update
        set kind = excluded.kind, identity = excluded.identity, position = excluded.position;
        {%- endfor %}
        {%- endif %}
        {{ headrace_dbt.claims_sql(build, model) if not var('headrace_copy', none) else 'select 1' }}
    {%- endcall -%}
{%- endmacro %}


{#
    The statement that writes of which batches of each dataset the model's rows are: the ledger's newest for a model that
    reads staging, the fewest of its upstreams for one that reads models. Status and checks read them; builds do not.
#}
{% macro claims_sql(build, model) %}
    with

    available as (
        select null::text as dataset, null::text as upstream, null::text as built, null::bigint as to_seq
        where false
        {%- for upstream in build.upstreams %}
        union all
            {%- if upstream.kind == 'dataset' %}
        select
            {{ headrace_dbt.literal(upstream.relation.identifier) }},
            'headrace.datasets',
            {{ headrace_dbt.literal(upstream.identity) }},
            {{ upstream.position }}
            {%- else %}
        select dataset, schema || '.' || identifier, built::text, to_seq
        from headrace.claims
        where (schema, identifier) = ({{ headrace_dbt.literal(upstream.relation.schema) }}, {{ headrace_dbt.literal(upstream.relation.identifier) }})
            {%- endif %}
        {%- endfor %}
    ),

    claimed as (
        select dataset, min(to_seq) as to_seq, jsonb_object_agg(upstream, built) as seen
        from available
        group by dataset
    ),

    forgotten as (
        delete from headrace.claims
        where (schema, identifier) = ({{ model }}) and dataset not in (select dataset from claimed)
    )

    insert into headrace.claims as kept (schema, identifier, dataset, to_seq, seen, settings)
    select {{ model }}, dataset, to_seq, seen, {{ headrace_dbt.literal(build.settings) }}::jsonb
    from claimed
    on conflict (schema, identifier, dataset) do update
    set
        to_seq = excluded.to_seq,
        seen = excluded.seen,
        settings = excluded.settings,
        -- a table with other rows of the same batches
        built = case when {{ build.action in ('create', 'whole') and build.rows > 0 }} then excluded.built else kept.built end,
        -- when it reached to_seq: a build without new batches does not change the time
        claimed_at = case when excluded.to_seq = kept.to_seq then kept.claimed_at else excluded.claimed_at end
    where (kept.to_seq, kept.seen, kept.settings, {{ build.rows > 0 and build.action != 'grains' }}) is distinct from (excluded.to_seq, excluded.seen, excluded.settings, false)
{%- endmacro %}
