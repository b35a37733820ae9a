"""What a login role must not do."""

import psycopg

from tests.support.stage import Stage

RECORDS = 300  # in the topic of the fixture `house`


def assert_denied(stage: Stage, *statements: str) -> None:
    """Each statement is refused for want of a privilege; nothing is left of those that are not."""
    for statement in statements:
        with psycopg.connect(stage.dsn) as connection:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            finally:
                connection.rollback()
            raise AssertionError(f"was allowed: {statement}")
