"""Reads a mart without running code of its owner.

headrace_dbt owns the marts, and may replace a table by a view, or add an index or statistics with an expression that
calls a function: a query or its planning runs it, as the session's role. `set role` alone does not help, because a
function can reset it. So only a plain table is read, under a lock on its definition.
"""

from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier, Literal

DBT = "headrace_dbt"
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}

# conflicts with changes to a table's indexes, statistics, rules or columns, not with reads, merges and deletes
DEFINITION_LOCK = "share update exclusive"


def become_dbt(connection: Connection[Any]) -> None:
    """Drop, until the end of the transaction, the rights that dbt's role does not have, if that role exists."""
    privilege = "set" if connection.info.server_version >= 160_000 else "member"  # before 16 every member may become it
    row = connection.execute(
        "select pg_has_role(session_user, oid, %s) from pg_roles where rolname = %s", (privilege, DBT)
    ).fetchone()
    if row == (True,):
        connection.execute(SQL("set local role {}").format(Identifier(DBT)))


def lock_definition(connection: Connection[Any], schema: str, name: str) -> None:
    """Lock the table's definition until the end of the transaction; takes no snapshot if it succeeds.

    A role that may only read gets a reader's lock.
    """
    table = Identifier(schema, name)
    try:
        with connection.transaction():  # a savepoint
            connection.execute(SQL("lock table {} in {} mode").format(table, SQL(DEFINITION_LOCK)))
    except errors.InsufficientPrivilege:
        connection.execute(SQL("lock table {} in access share mode").format(table))


def kind_of(connection: Connection[Any], schema: str, name: str) -> str | None:
    """The kind of relation that replaced the table; None for a table."""
    row = connection.execute(
        "select c.relkind from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid "
        "where n.nspname = %s and c.relname = %s",
        (schema, name),
    ).fetchone()
    return None if row is None or row[0] == "r" else KINDS.get(row[0], "no table")


def foreign_code(connection: Connection[Any], schema: str, name: str, column: str) -> str | None:
    """Code of a role with fewer rights than this session that reading one column of a plain table would run; or None.

    Postgres's own functions and types are not in pg_depend.
    """
    row = connection.execute(
        SQL(
            """
            with target as (
                select c.oid, c.relowner, n.nspowner, a.attnum
                from pg_class as c
                inner join pg_namespace as n on c.relnamespace = n.oid
                left join pg_attribute as a on a.attrelid = c.oid and a.attname = {column} and not a.attisdropped
                where n.nspname = {schema} and c.relname = {name}
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
            select 'schema ' || {schema}, pg_get_userbyid(target.nspowner)
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
            """
        ).format(schema=Literal(schema), name=Literal(name), column=Literal(column))
    ).fetchone()
    return None if row is None else f"{row[0]} of {row[1]}"
