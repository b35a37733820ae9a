"""One call at a time, behind its caller."""

import threading
from collections.abc import Callable

import pytest

from headrace.ingest.commit_thread import CommitThread


def test_calls_run_in_order_and_are_settled_by_the_caller() -> None:
    settled: list[tuple[int, bool]] = []
    caller = threading.current_thread()
    with CommitThread[int](
        lambda number: settled.append((number, threading.current_thread() is caller))
    ) as commit_thread:
        for number in range(5):
            commit_thread.run(lambda number=number: number)  # type: ignore[misc]
            assert [found for found, _ in settled] == list(range(number))
    assert settled == [(number, True) for number in range(5)]


def test_caller_goes_on_while_a_call_runs() -> None:
    gate = threading.Event()
    with CommitThread[bool](lambda passed: None) as commit_thread:
        commit_thread.run(lambda: gate.wait(10))
        gate.set()  # never reached if run() waited


def test_call_waits_for_the_one_before() -> None:
    running: list[int] = []

    def call(number: int) -> Callable[[], None]:
        def counted() -> None:
            running.append(number)
            assert running == [number]
            running.pop()

        return counted

    with CommitThread[None](lambda _: None) as commit_thread:
        for number in range(50):
            commit_thread.run(call(number))


def _fails() -> int:
    raise ValueError("no")


def _run(settled: list[int], *calls: Callable[[], int], error: Exception | None = None) -> None:
    with CommitThread(settled.append) as commit_thread:
        for call in calls:
            commit_thread.run(call)
        if error is not None:
            raise error


def test_error_of_a_call_is_raised_by_the_next_which_does_not_run() -> None:
    settled: list[int] = []
    with pytest.raises(ValueError, match="no"):
        _run(settled, _fails, lambda: 2)
    assert settled == []


def test_error_of_the_last_call_is_raised_at_the_end() -> None:
    settled: list[int] = []
    with pytest.raises(ValueError, match="no"):
        _run(settled, lambda: 1, _fails)
    assert settled == [1]


@pytest.mark.parametrize(("last", "expected"), [(lambda: 1, [1]), (_fails, [])])
def test_error_of_the_caller_is_raised_once_the_last_call_has_ended(
    last: Callable[[], int], expected: list[int]
) -> None:
    settled: list[int] = []
    with pytest.raises(KeyError):
        _run(settled, last, error=KeyError())
    assert settled == expected
