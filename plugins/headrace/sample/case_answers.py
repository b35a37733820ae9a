"""The answers to the case's questions, from the marts' functions."""

from typing import Any, LiteralString

from psycopg.rows import dict_row

from headrace.marts.claims import SCHEMA
from headrace.output import aligned, shown
from headrace.postgres.connection import Connect, database
from headrace.postgres.foreign_objects import refuse_foreign_objects

QUESTIONS: dict[str, LiteralString] = {
    "top_users": "select userid, revenue from marts.top_users(%(location)s, %(limit)s)",
    "jobs_by_location": "select * from marts.jobs_by_location(%(location)s, %(limit)s)",
    "jobs_by_service": "select * from marts.jobs_by_service(%(service)s, %(limit)s)",
}

CaseAnswers = dict[str, list[dict[str, str]]]


def read_case_answers(connect: Connect, location: str, service: str, limit: int) -> CaseAnswers:
    """The rows of each question, with values as text so that JSON keeps cents exact.

    The functions run with the session's rights. Raises DatabaseError if their owner has fewer rights.
    """
    parameters = {"location": location, "service": service, "limit": limit}
    with database(connect) as connection, connection.cursor(row_factory=dict_row) as cursor:
        refuse_foreign_objects(connection, SCHEMA, "answers")
        return {
            name: [_as_text(row) for row in cursor.execute(query, parameters).fetchall()]
            for name, query in QUESTIONS.items()
        }


def render(answers: CaseAnswers) -> str:
    """The answers as plain tables."""
    return "\n\n".join(_table(name, rows) for name, rows in answers.items())


def _as_text(row: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else shown(str(value)) for name, value in row.items()}


def _table(name: str, rows: list[dict[str, str]]) -> str:
    if not rows:
        return f"{name}: no rows"
    return "\n".join([f"{name}:", *aligned([list(rows[0]), *(list(row.values()) for row in rows)])])
