"""Named SQL: the statement NAME of a package is its file sql/NAME.sql."""

from functools import cache
from importlib import resources


@cache
def read_sql(package: str, name: str) -> bytes:
    """The text of `package`'s sql/`name`.sql, as psycopg takes it: values are parameters."""
    return (resources.files(package) / "sql" / f"{name}.sql").read_bytes()
