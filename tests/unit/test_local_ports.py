"""Which port a local service gets."""

import socket
from collections.abc import Iterator

import pytest

from headrace.exceptions import LocalServiceError
from headrace.local import ports
from headrace.local.ports import choose_port, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


@pytest.fixture
def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_choose_port_prefers_the_remembered_one(free: int) -> None:
    assert choose_port("kafka", demanded=None, remembered=free, reserved=set()) == free


def test_choose_port_prefers_the_demanded_one_to_the_remembered(free: int) -> None:
    assert choose_port("kafka", demanded=free, remembered=9092, reserved=set()) == free


def test_choose_port_with_a_taken_default_finds_another(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ports.DEFAULT_PORTS, "kafka", taken)

    port = choose_port("kafka", demanded=None, remembered=taken, reserved=set())

    assert port != taken
    assert is_free(port)


def test_choose_port_never_gives_one_port_to_two_services(free: int) -> None:
    assert choose_port("kafka", demanded=None, remembered=free, reserved={free}) != free


def test_choose_port_that_is_demanded_and_taken_is_refused_with_its_holder(taken: int) -> None:
    expected = rf"^HEADRACE_KAFKA_PORT: port {taken} of 127.0.0.1 is taken by pid \d+ .*; expected it to be free; stop"

    with pytest.raises(LocalServiceError, match=expected):
        choose_port("kafka", demanded=taken, remembered=None, reserved=set())


@pytest.mark.parametrize("remembered", [0, -1, 70_000])
def test_choose_port_ignores_a_remembered_port_that_is_none(remembered: int) -> None:
    assert 0 < choose_port("kafka", demanded=None, remembered=remembered, reserved=set()) < 65_536


def test_is_free_counts_a_listener_on_all_addresses_as_taken() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()

        assert not is_free(server.getsockname()[1])
