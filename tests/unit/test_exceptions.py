"""Errors travel between processes."""

import pickle

import pytest

from headrace import exceptions
from headrace.exceptions import HeadraceError, PermanentError, RetriableError

ALL = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, HeadraceError)]


@pytest.mark.parametrize("kind", ALL)
def test_exception_that_is_pickled_keeps_kind_and_message(kind: type[HeadraceError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("jobs[2]: found 1, expected 2")))
    assert type(copy) is kind
    assert str(copy) == "jobs[2]: found 1, expected 2"


@pytest.mark.parametrize("kind", ALL)
def test_exception_without_a_message_says_its_docstring(kind: type[HeadraceError]) -> None:
    assert str(kind()) == kind.__doc__
    assert str(pickle.loads(pickle.dumps(kind()))) == kind.__doc__


@pytest.mark.parametrize("kind", set(ALL) - {HeadraceError})
def test_exception_is_either_retriable_or_permanent(kind: type[HeadraceError]) -> None:
    assert issubclass(kind, RetriableError) != issubclass(kind, PermanentError)
