"""A full refresh replaces a table: dependent objects and grants stay, or it is refused."""

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


# what another user made, and its name
DEPENDENTS = (
    ("create view reporting.homes as select location from marts.users", "view reporting.homes of headrace"),
    ("create view reporting.distant as select * from reporting.homes", None),  # goes with the other one
    (
        "create materialized view reporting.counts as select count(*) from marts.users",
        "materialized view reporting.counts of headrace",
    ),
    (
        "create function reporting.everybody() returns setof marts.users language sql as 'select * from marts.users'",
        "function reporting.everybody() of headrace",
    ),
    (
        "create table reporting.visits (userid bigint references marts.users (userid))",
        "constraint visits_userid_fkey on table reporting.visits",
    ),
    ("create table reporting.copies (of_a_user marts.users)", "column of_a_user of table reporting.copies"),
    (
        "create function reporting.watch() returns trigger language plpgsql as 'begin return new; end'",
        None,
    ),
    (
        "create trigger watched before insert on marts.users for each row execute function reporting.watch()",
        "trigger watched on table marts.users",
    ),
    ("create policy own on marts.users using (true)", "policy own on table marts.users"),
    (
        "create publication reported for table marts.users with (publish = 'insert')",
        "publication of table marts.users in publication reported",
    ),
)


def test_full_refresh_that_would_drop_what_others_made_is_refused_and_names_it(warehouse: Warehouse) -> None:
    state = "select 'marts.users'::regclass::oid, identifier, dataset, to_seq, built from headrace.claims order by 2, 3"
    before = warehouse.query(state)
    warehouse.execute("create schema reporting")
    try:
        for statement, _ in DEPENDENTS:
            warehouse.execute(statement)
        with pytest.raises(BuildError) as refused:
            warehouse.build(**REFRESHED)
        text = str(refused.value)
        found = text.partition("marts.users: found ")[2].partition("marts.users: found ")[2]
        names, _, rest = found.partition(", expected nothing that depends on the table: a full refresh replaces it")
        assert sorted(names.split(", ")) == sorted(name for _, name in DEPENDENTS if name)
        assert "nothing was changed; drop them and create them again afterwards" in rest
        assert warehouse.query(state) == before
        warehouse.users((1, 2, "B"))
        warehouse.build()  # as always
        warehouse.assert_right("users")
    finally:
        warehouse.execute("drop publication if exists reported")
        warehouse.execute("drop policy if exists own on marts.users")
        warehouse.execute("drop schema reporting cascade")
    warehouse.build(**REFRESHED)
    assert warehouse.query(state)[0][0] != before[0][0]
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
        assert warehouse.value("select 'marts.users'::regclass::oid") != oid
        assert warehouse.query(rights) == before
        assert warehouse.value("select has_table_privilege('headrace_reader', 'marts.users', 'select')")  # by public
        warehouse.assert_right("users")
    finally:
        for role in ("analyst", '"of ""another"""'):
            warehouse.execute(f"drop owned by {role}")
            warehouse.execute(f"drop role {role}")
        warehouse.execute("revoke all on marts.users from public; grant select on marts.users to headrace_reader")
