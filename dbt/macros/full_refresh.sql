{#
    Objects and grants that a full refresh must keep. dbt drops the replaced table with `cascade`, which would drop views
    of other users and grants that are in no config.
#}


{#
    Refuse if objects of others depend on a table: views, functions that return its rows, foreign keys, triggers, policies,
    publications. The error gives name and owner. Views of dbt are dropped and built again if they are selected too.
    Called before the build, and again under the lock of the rename, when no more objects can be created.
#}
{% macro refuse_dependents(relation, shown) -%}
    {%- set sql -%}
        with

        target as (
            select c.oid, c.reltype, t.typarray
            from pg_class as c
            inner join pg_type as t on c.reltype = t.oid
            where c.oid = to_regclass({{ literal(relation.include(database=false)) }})
        ),

        dependents as (
            select d.classid, d.objid, d.objsubid
            from target
            inner join pg_depend as d
                on (d.refclassid = 'pg_class'::regclass and d.refobjid = target.oid)
                or (d.refclassid = 'pg_type'::regclass and d.refobjid in (target.reltype, target.typarray))
            where
                d.deptype = 'n'
                or (d.deptype = 'a' and d.classid in (
                    'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_publication_rel'::regclass, 'pg_rewrite'::regclass
                ))
        ),

        named as (
            -- a view depends on a table through its rewrite rule
            select
                case v.relkind when 'm' then 'materialized view' when 'v' then 'view' else 'rule on' end as kind,
                n.nspname as schema,
                v.relname as name,
                v.relowner as owner,
                v.relkind in ('v', 'm') as is_view
            from dependents as d
            inner join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
            inner join pg_class as v on r.ev_class = v.oid
            inner join pg_namespace as n on v.relnamespace = n.oid
            union
            select null, null, pg_describe_object(d.classid, d.objid, d.objsubid), p.proowner, false
            from dependents as d
            left join pg_proc as p on d.classid = 'pg_proc'::regclass and d.objid = p.oid
            left join pg_constraint as c on d.classid = 'pg_constraint'::regclass and d.objid = c.oid
            left join pg_trigger as t on d.classid = 'pg_trigger'::regclass and d.objid = t.oid
            cross join target
            where
                d.classid <> 'pg_rewrite'::regclass
                -- the table's own constraints are dropped and created with it
                and c.conrelid is distinct from target.oid
                and not coalesce(t.tgisinternal, false)
        )

        select kind, schema, name, is_view, pg_get_userbyid(owner) as owner, owner is not null as has_owner
        from named
        order by schema, name
    {%- endset -%}
    {%- set found = [] -%}
    {%- for row in fetch_rows(sql) -%}
        {%- if not (row.is_view and is_selected_view(row.schema, row.name)) -%}
            {%- set name = row.name if row.schema is none else row.kind ~ ' ' ~ row.schema ~ '.' ~ row.name -%}
            {%- do found.append(name ~ (' of ' ~ row.owner if row.has_owner else '')) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if found -%}
        {%- do exceptions.raise_compiler_error(
            shown.schema ~ '.' ~ shown.identifier ~ ': found ' ~ found | join(', ') ~ ', expected nothing that depends on the'
            ~ ' table: a full refresh replaces it, and what depends on it would be dropped; nothing was changed; drop them'
            ~ ' and create them again afterwards, or make dbt models of the views and select them too'
        ) -%}
    {%- endif -%}
{%- endmacro %}


{# Whether a view is a model of this project that this invocation also builds. #}
{% macro is_selected_view(schema, name) -%}
    {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.schema == schema and node.alias == name -%}
        {{ return(node.unique_id in selected_resources) }}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}


{# The statements that copy the grants of the replaced table, and of its columns, to the new table. #}
{% macro rights_of(old_relation, new_relation) -%}
    {%- set sql -%}
        with

        target as (
            select oid, relacl, relowner from pg_class
            where oid = {{ literal(old_relation.include(database=false)) }}::regclass
        ),

        rights as (
            select acl.grantee, acl.privilege_type, acl.is_grantable, null::name as column_name, target.relowner
            from target
            cross join lateral aclexplode(target.relacl) as acl
            union all
            select acl.grantee, acl.privilege_type, acl.is_grantable, a.attname, target.relowner
            from target
            inner join pg_attribute as a on a.attrelid = target.oid and a.attnum > 0 and not a.attisdropped
            cross join lateral aclexplode(a.attacl) as acl
            where exists (
                select from pg_attribute as kept
                where
                    kept.attrelid = {{ literal(new_relation.include(database=false)) }}::regclass
                    and kept.attname = a.attname
                    and not kept.attisdropped
            )
        )

        select
            format(
                'grant %s%s on %s to %s%s',
                privilege_type,
                ' (' || quote_ident(column_name) || ')',
                {{ literal(new_relation) }},
                case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
                case when is_grantable then ' with grant option' else '' end
            ) as statement
        from rights
        where grantee <> relowner
        order by 1
    {%- endset -%}
    {{ return(fetch_rows(sql) | map(attribute='statement') | list) }}
{%- endmacro %}


{# A new table gets the grants of the replaced one; default grants that were revoked there are revoked again. #}
{% macro keep_rights(old_relation, new_relation) -%}
    {%- for row in fetch_rows(
        "select distinct case acl.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(acl.grantee)) end as grantee"
        ~ " from pg_class as c cross join lateral aclexplode(c.relacl) as acl"
        ~ " where acl.grantee <> c.relowner and c.oid = " ~ literal(new_relation.include(database=false)) ~ "::regclass"
        ~ " and exists (select from pg_class as old where old.relacl is not null"
        ~ " and old.oid = " ~ literal(old_relation.include(database=false)) ~ "::regclass)"
    ) -%}
        {%- do run_sql('revoke all on ' ~ new_relation ~ ' from ' ~ row.grantee) -%}
    {%- endfor -%}
    {%- for statement in rights_of(old_relation, new_relation) -%}
        {%- do run_sql(statement) -%}
    {%- endfor -%}
{%- endmacro %}
