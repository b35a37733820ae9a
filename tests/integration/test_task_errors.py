"""Errors at the edge of an Airflow task: what its log shows of them."""

import logging
import traceback

import pytest
import structlog
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from headrace import logs, masking
from headrace.airflow.connections import _TaskLog, task_errors
from headrace.exceptions import DatabaseError, SourceUnavailable
from headrace.output import Quoted

ODD = "::group::x\x1b[2J\u202e canary#'one"


@pytest.fixture(autouse=True)
def _canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_secrets", set())
    masking.remember("canary#'one")


def _raise(error: Exception, cause: Exception | None) -> None:
    if cause is None:
        raise error
    try:
        raise cause
    except Exception as caught:
        raise error from caught


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(DatabaseError, AirflowFailException), (SourceUnavailable, SourceUnavailable), (ValueError, Quoted)],
)
def test_error_of_a_task_and_its_causes_are_logged_visibly_and_without_secrets(
    kind: type[Exception], expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught, task_errors():
        _raise(kind(f"found {ODD}"), RuntimeError(f"caused by {ODD}"))
    text = "".join(traceback.format_exception(caught.value))
    said = "\n".join(line for line in text.splitlines() if not line.startswith((" ", "Traceback", "The above")))
    assert said.replace("\n", "").isprintable()
    assert said.count(r"\x3a:group::x\x1b[2J\u202e ***") == 2
    assert "RuntimeError: caused by" in said


def test_error_of_a_task_without_odd_texts_is_the_error_itself() -> None:
    for error in (ValueError("plain"), AirflowSkipException("nothing new")):
        with pytest.raises(type(error)) as caught, task_errors():
            _raise(error, KeyError("cause"))
        assert caught.value is error
        assert isinstance(error.__cause__, KeyError)


def test_what_a_task_logs_is_visible_and_without_secrets_tracebacks_too() -> None:
    logger = logging.Logger("headrace.test")
    logger.addHandler(_TaskLog())
    with structlog.testing.capture_logs() as captured:
        logger.warning("found %s", ODD, extra={logs.FIELDS: {"field": ODD}})
        try:
            raise ValueError(ODD)
        except ValueError:
            logger.exception("oh")
    first, second = captured
    assert first["event"] == r"found \x3a:group::x\x1b[2J\u202e ***"
    assert first["field"] == r"\x3a:group::x\x1b[2J\u202e ***"
    assert second["exception"].endswith(r"ValueError: \x3a:group::x\x1b[2J\u202e ***")
