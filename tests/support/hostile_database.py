"""Defaults of roles, databases and environments that change what a statement does."""

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

LOCATION = "Kraków → 東京"  # in LATIN1 the first is other bytes, and the others are nothing at all

# alter role .. set; what a session inherits where it says nothing
HOSTILE = {
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "search_path": "shadows, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "50ms",
    "idle_session_timeout": "50ms",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
}
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "America/New_York",
    "PGOPTIONS": "-c extra_float_digits=-15 -c search_path=shadows,pg_catalog",
}
# better matches than pg_catalog's own, for whoever looks for them here first
SHADOWS = """
create schema shadows;
create function shadows.lower(text) returns text language sql immutable as 'select ''shadowed''';
create function shadows.now() returns timestamptz language sql as 'select ''2000-01-01 UTC''::timestamptz';
create function shadows.clock_timestamp() returns timestamptz language sql as 'select ''2000-01-01 UTC''::timestamptz';
create function shadows.date_trunc(text, timestamp) returns timestamp language sql as 'select $2';
create function shadows.set_config(text, text, boolean) returns text language sql as 'select $2';
create function shadows.pg_backend_pid() returns integer language sql as 'select 1';
create function shadows.to_regclass(text) returns regclass language sql as 'select null::regclass';
create table shadows.pg_attribute (attname text);
create domain shadows.text as pg_catalog.text check (value = '');
grant usage on schema shadows to public;
"""


def make_hostile(server_dsn: str, database_dsn: str, role: str | None = None, moment: str = "50ms") -> None:
    """Give a database, or half of it a role, every default that changes results."""
    database = str(conninfo_to_dict(database_dsn)["dbname"])
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute(SHADOWS.encode())
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        defaults = {name: moment if value == "50ms" else value for name, value in HOSTILE.items()}
        if connection.info.server_version >= 170_000:
            defaults["transaction_timeout"] = moment
        owners = [SQL("database {}").format(Identifier(database))]
        owners += [SQL("role {}").format(Identifier(role))] if role else []
        for number, (name, value) in enumerate(defaults.items()):
            setting = SQL(value) if name == "search_path" else Literal(value)
            connection.execute(
                SQL("alter {} set {} = {}").format(owners[number % len(owners)], Identifier(name), setting)
            )
