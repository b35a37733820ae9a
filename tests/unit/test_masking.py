"""Secrets that were read are in no message, in no form."""

import io
import json
import logging
import pickle

import pytest

from headrace import logs, masking
from headrace.exceptions import DatabaseError
from headrace.settings import Settings

SECRET = 'p@ss "w0rd"/%'


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with nothing known."""
    monkeypatch.setattr(masking, "_secrets", set())


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://etl:canary%40one@db/sales",
        "postgresql://etl@db/sales?password=canary%40one&sslmode=require",
        "host=db password=canary@one user=etl",
        r"host=db password = 'canary\@one' user=etl",
        "rediss://:canary%40one@cache:6379/0",
    ],
)
def test_password_of_an_address_is_masked_in_any_form(address: str) -> None:
    masking.remember_address(address)
    assert masking.mask("x canary@one y canary%40one z") == "x *** y *** z"


def test_address_that_cannot_be_read_is_masked_whole() -> None:
    masking.remember_address("postgresql://etl:canary@[db/sales")
    assert masking.mask("found postgresql://etl:canary@[db/sales") == "found ***"


def test_words_that_are_too_short_to_be_secrets_stay() -> None:
    for short in (None, "", "a", "pass"):
        masking.remember(short)
    assert masking.mask("a pass") == "a pass"


def test_secrets_are_masked_in_errors_also_after_pickling() -> None:
    masking.remember(SECRET)
    error = DatabaseError(f"postgres: {SECRET} was not taken")
    assert str(error) == "postgres: *** was not taken"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_secrets_are_masked_in_json_logs_and_their_tracebacks() -> None:
    masking.remember(SECRET)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("found %s", SECRET, extra={logs.FIELDS: {"field": SECRET}})
    document = json.loads(stream.getvalue())
    assert document["event"] == "found ***"
    assert document["field"] == "***"
    assert document["exception"].endswith("ValueError: ***")


def test_settings_remember_what_they_hold_and_do_not_show_it() -> None:
    environ = {
        "HEADRACE_POSTGRES_DSN": "postgresql://etl:canary-postgres@db/sales",
        "HEADRACE_DBT_DSN": "postgresql://builder:canary-dbt@db/sales",
        "HEADRACE_REDIS_URL": "redis://:canary-redis@cache",
        "HEADRACE_KAFKA_SASL_PASSWORD": "canary-sasl",
        "HEADRACE_KAFKA_SSL_PASSWORD": "canary-key",
    }
    settings = Settings.from_environment(environ)
    assert "canary" not in repr(settings)
    assert "canary" not in masking.mask(" ".join(environ.values()))
