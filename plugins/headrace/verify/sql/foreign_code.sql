with target as (
    select c.oid, c.relowner, n.nspowner, a.attnum
    from pg_class as c
    inner join pg_namespace as n on c.relnamespace = n.oid
    left join pg_attribute as a on a.attrelid = c.oid and a.attname = %(column)s::text and not a.attisdropped
    where n.nspname = %(schema)s::text and c.relname = %(name)s::text
),

parts as (
    select 'pg_class'::regclass as classid, oid as objid, 0 as objsubid from target
    union all
    select 'pg_class'::regclass, oid, attnum from target
    union all
    select 'pg_attrdef'::regclass, d.oid, 0
    from pg_attrdef as d inner join target on d.adrelid = target.oid and d.adnum = target.attnum
    union all
    select 'pg_class'::regclass, i.indexrelid, 0
    from pg_index as i inner join target on i.indrelid = target.oid
    union all
    select 'pg_statistic_ext'::regclass, s.oid, 0
    from pg_statistic_ext as s inner join target on s.stxrelid = target.oid
    union all
    select 'pg_constraint'::regclass, c.oid, 0
    from pg_constraint as c inner join target on c.conrelid = target.oid
    union all
    select 'pg_policy'::regclass, p.oid, 0
    from pg_policy as p inner join target on p.polrelid = target.oid
    union all
    select 'pg_rewrite'::regclass, r.oid, 0
    from pg_rewrite as r inner join target on r.ev_class = target.oid
),

used as (
    select distinct d.refclassid, d.refobjid
    from parts
    inner join pg_depend as d
        on d.classid = parts.classid and d.objid = parts.objid
        and (parts.classid <> 'pg_class'::regclass or d.objsubid in (0, parts.objsubid))
),

owned as (
    select 'pg_proc'::regclass as refclassid, oid as refobjid, proowner as owner_id from pg_proc
    union all
    select 'pg_type'::regclass, oid, typowner from pg_type
    union all
    select 'pg_operator'::regclass, oid, oprowner from pg_operator
    union all
    select 'pg_opclass'::regclass, oid, opcowner from pg_opclass
    union all
    select 'pg_opfamily'::regclass, oid, opfowner from pg_opfamily
)

select pg_describe_object(used.refclassid, used.refobjid, 0), pg_get_userbyid(owned.owner_id)
from used
inner join owned using (refclassid, refobjid)
where headrace.is_foreign(owned.owner_id)
union all
select 'schema ' || %(schema)s::text, pg_get_userbyid(target.nspowner)
from target
where headrace.is_foreign(target.nspowner) -- it could give another table this name
union all
select 'a definition that this user cannot lock', pg_get_userbyid(target.relowner)
from target
where
    headrace.is_foreign(target.relowner)
    and not exists (
        select from pg_locks as l
        where
            l.pid = pg_backend_pid()
            and l.relation = target.oid
            and l.mode = 'ShareUpdateExclusiveLock'
            and l.granted
    )
order by 1
limit 1
