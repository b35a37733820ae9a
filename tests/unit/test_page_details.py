"""Details are read once for equal requests, one at a time, and never by the thread that serves."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.airflow import page_details
from headrace.airflow.page_details import DetailReader
from headrace.exceptions import DatabaseUnavailable

FAR_S = 30  # what no test waits for unless it fails


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    wait(monkeypatch, FAR_S)
    monkeypatch.setattr(page_details, "POLL_S", 0.005)


def wait(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for name in ("WAIT_S", "FIRST_WAIT_S"):
        monkeypatch.setattr(page_details, name, seconds)


def counted(results: list[Any], gate: threading.Event | None = None) -> Callable[[], Any]:
    def read() -> Any:
        if gate is not None:
            gate.wait(FAR_S)
        found = results.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return read


def test_equal_requests_are_read_once_and_again_when_they_are_old() -> None:
    async def run() -> None:
        reader, results = DetailReader(), ["a", "b"]
        read = counted(results)
        found = await asyncio.gather(*(reader.get("k", read, 60) for _ in range(20)))
        assert {each.value for each in found} == {"a"}
        assert (await reader.get("k", read, 60)).value == "a"
        found[0].next_at = 0
        assert (await reader.get("k", read, 60)).value == "b"

    asyncio.run(run())


def test_error_is_a_text_beside_the_last_value_and_not_asked_for_at_once() -> None:
    async def run() -> None:
        reader = DetailReader()
        read = counted(["a", DatabaseUnavailable("postgres: gone"), "never"])
        detail = await reader.get("k", read, 60)
        detail.next_at = 0
        for _ in range(3):
            detail = await reader.get("k", read, 60)
            assert (detail.value, detail.error) == ("a", "postgres: gone")

    asyncio.run(run())


def test_slow_read_holds_up_only_its_own_request_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_details, "QUEUE", 3)
    wait(monkeypatch, 0.05)

    async def run() -> None:
        reader, gate = DetailReader(), threading.Event()
        began = time.monotonic()
        found = [await reader.get(number, counted([number], gate), 60) for number in range(5)]
        assert time.monotonic() - began < FAR_S
        assert [each.value for each in found] == [None] * 5
        assert [each.is_running for each in found] == [True, True, True, False, False]  # the others ask again
        gate.set()
        while any(each.is_running for each in found):
            await asyncio.sleep(0.01)
        assert [each.value for each in found] == [0, 1, 2, None, None]

    asyncio.run(run())


def test_few_results_are_kept_and_bytes_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_details, "KEPT", 4)

    async def run() -> None:
        reader = DetailReader()
        for number in range(10):
            await reader.get(("value", number), counted([number]), 60)
        assert len(reader._details) <= 5
        reader.forget("value")
        assert not reader._details

    asyncio.run(run())
