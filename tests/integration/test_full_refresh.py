"""A full refresh writes the difference: what others made of a table, and what they may do with it, stays."""

from pathlib import Path

import pytest

from headrace.exceptions import BuildError
from tests.support.warehouse import Warehouse, shared_warehouse

REFRESHED = {"select": "users", "full_refresh": True}


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Everything is built; one user is staged."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    warehouse.users((0, 1, "A"))
    warehouse.build()
    return warehouse


# what another user made
DEPENDENTS = (
    "create view reporting.homes as select location from marts.users",
    "create materialized view reporting.counts as select count(*) from marts.users",
    "create function reporting.all() returns setof marts.users language sql as 'select * from marts.users'",
    "create table reporting.copies (of_a_user marts.users)",
    "create policy own on marts.users using (true)",
    "create publication reported for table marts.users",
)


def test_full_refresh_keeps_the_table_and_what_others_made_of_it(warehouse: Warehouse) -> None:
    state = "select 'marts.users'::regclass::oid"
    before = warehouse.query(state)
    warehouse.execute("create schema reporting")
    try:
        for statement in DEPENDENTS:
            warehouse.execute(statement)
        warehouse.tamper("update marts.users set location = 'wrong'")
        warehouse.users((1, 2, "B"))
        warehouse.build(**REFRESHED)
        warehouse.assert_right("users")
        assert warehouse.query(state) == before
        assert warehouse.query("select location from reporting.homes order by 1") == [("A",), ("B",)]
    finally:
        warehouse.execute("drop publication if exists reported")
        warehouse.execute("drop policy if exists own on marts.users")
        warehouse.execute("drop schema reporting cascade")


def test_full_refresh_alters_columns_and_names_the_views_that_need_them(warehouse: Warehouse) -> None:
    warehouse.execute("alter table marts.users add column former text")
    warehouse.execute("create schema reporting; create view reporting.formers as select former from marts.users")
    try:
        with pytest.raises(BuildError) as refused:
            warehouse.build(**REFRESHED)
        assert (
            "marts.users: found view reporting.formers of headrace, expected nothing that needs the columns former"
            in (str(refused.value))
        )
        warehouse.execute("create or replace view reporting.formers as select null::text as former")
        warehouse.build(**REFRESHED)
        assert warehouse.value("select count(*) from reporting.formers") == 1
    finally:
        warehouse.execute("drop schema reporting cascade")
    warehouse.users((1, 2, "B"))
    warehouse.build(select="users")
    warehouse.assert_right("users")


def test_full_refresh_keeps_the_rights_that_others_were_granted(warehouse: Warehouse) -> None:
    rights = (
        "select 'table', acl.* from pg_class as c cross join lateral aclexplode(c.relacl) as acl "
        "where c.oid = 'marts.users'::regclass union all "
        "select a.attname, acl.* from pg_attribute as a cross join lateral aclexplode(a.attacl) as acl "
        "where a.attrelid = 'marts.users'::regclass order by 1, 3, 4"
    )
    for role in ("analyst", 'of "another"'):
        quoted = '"' + role.replace('"', '""') + '"'
        warehouse.execute(f"drop role if exists {quoted}")
        warehouse.execute(f"create role {quoted}")
    try:
        warehouse.execute("grant select, references on marts.users to analyst with grant option")
        warehouse.execute('grant select (userid), update (location) on marts.users to "of ""another"""')
        warehouse.execute("grant select on marts.users to public")
        warehouse.execute("revoke all on marts.users from headrace_reader")  # which new tables grant by default
        before, oid = warehouse.query(rights), warehouse.value("select 'marts.users'::regclass::oid")
        assert len(before) > 5
        warehouse.build(**REFRESHED)
        assert warehouse.value("select 'marts.users'::regclass::oid") == oid
        assert warehouse.query(rights) == before
        assert warehouse.value("select has_table_privilege('headrace_reader', 'marts.users', 'select')")  # by public
        warehouse.assert_right("users")
    finally:
        for role in ("analyst", '"of ""another"""'):
            warehouse.execute(f"drop owned by {role}")
            warehouse.execute(f"drop role {role}")
        warehouse.execute("revoke all on marts.users from public; grant select on marts.users to headrace_reader")


def test_table_of_an_earlier_version_is_taken_over_once_and_named(warehouse: Warehouse) -> None:
    warehouse.execute("delete from headrace.model_states where (schema, identifier) = ('marts', 'users')")
    warehouse.execute("alter table marts.users add column former text; grant select on marts.users to public")
    lines: list[str] = []
    warehouse.build(select="users", print_line=lines.append)
    assert (
        "build: took over users, built by an earlier version: compared as a whole, and altered in place; "
        "grants and views stay"
    ) in lines
    warehouse.assert_right("users")
    former = "select from pg_attribute where attrelid = 'marts.users'::regclass and attname = 'former'"
    assert warehouse.query(former) == []
    assert warehouse.value("select has_table_privilege('public', 'marts.users', 'select')")
    warehouse.execute("revoke select on marts.users from public")
    warehouse.users((1, 2, "B"))
    lines.clear()
    warehouse.build(select="users", print_line=lines.append)
    assert not any("took over" in line for line in lines), lines
