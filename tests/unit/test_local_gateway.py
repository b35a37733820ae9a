"""Who gets through to a local server, and what becomes of the bytes."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headrace.local import gateway
from headrace.local.ports import free_ports
from tests.other_user import UID, as_other_user, only_as_root


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)  # for what never connects: accepting it would wait for ever
        yield listener


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """A server on a Unix socket that sends back what it gets, and GONE at the end of it."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "server.sock"))
    server.listen()

    def response(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                connection.sendall(data)
            connection.sendall(b"GONE")

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=response, args=(server.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    _end(server)
    thread.join()


@pytest.fixture
def gate(server: socket.socket, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A gateway to the server, as `headrace up` starts it, and its port."""
    (port,) = free_ports(1)
    argv = list(map(str, gateway.to_socket(port, "server.sock")))
    process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_for(port)
    yield process, port
    process.kill()
    process.communicate()


def _end(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port)).close()
        assert time.monotonic() < deadline, "the gateway does not listen"
        time.sleep(0.02)


def _received(connection: socket.socket) -> bytes:
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found


@pytest.fixture(params=["netlink", "proc"])
def lookup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the user is found: the second way is that of a sandbox without netlink."""
    if request.param == "proc":

        def refuse(_local: gateway.Address, _remote: gateway.Address) -> int | None:
            raise PermissionError

        monkeypatch.setattr(gateway, "_uid_by_netlink", refuse)
    else:
        monkeypatch.setattr(gateway, "_uid_by_table", None)


@pytest.mark.usefixtures("lookup")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_peer_uid_of_a_connection_is_the_user_who_made_it(family: int, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.socket(family) as client:
        client.connect(("127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1", port))
        with listener.accept()[0] as connection:
            assert gateway.peer_uid(connection) == os.geteuid()


@pytest.mark.usefixtures("lookup")
def test_peer_uid_of_a_closed_connection_is_unknown(listener: socket.socket) -> None:
    for is_reset in (False, True):
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"a request that nobody may forward")
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with listener.accept()[0] as connection:
            assert gateway.peer_uid(connection) is None


@only_as_root
@pytest.mark.usefixtures("lookup")
def test_peer_uid_of_another_user_is_theirs(listener: socket.socket) -> None:
    found: list[int | None] = []

    def accept() -> None:
        with listener.accept()[0] as connection:
            found.append(gateway.peer_uid(connection))

    thread = threading.Thread(target=accept)
    thread.start()
    as_other_user(lambda: socket.create_connection(listener.getsockname(), timeout=30).recv(1))
    thread.join()
    assert found == [UID]


def test_gateway_forwards_both_ways_and_tells_each_end_of_the_others(gate: tuple[subprocess.Popen[str], int]) -> None:
    process, port = gate
    sent = os.urandom(3_000_000)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"HELLO")
        assert client.recv(5) == b"HELLO"  # it is admitted: a client that is done before is taken for one that left

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert _received(client) == sent + b"GONE"
        sender.join()
    deadline = time.monotonic() + 5
    while psutil.Process(process.pid).num_threads() > 1:
        assert time.monotonic() < deadline, "its threads outlive their connections"
        time.sleep(0.02)
    assert psutil.Process(process.pid).num_fds() == 4  # the standard ones and the listener


def test_gateway_ends_when_its_server_is_gone(gate: tuple[subprocess.Popen[str], int], server: socket.socket) -> None:
    process, port = gate
    _end(server)
    with socket.create_connection(("127.0.0.1", port)) as client, suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert process.wait(timeout=30) == 1
    assert process.stderr is not None
    assert process.stderr.read().endswith(" the server is gone: this gateway ends\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@only_as_root
def test_gateway_closes_connections_of_another_user_and_logs_one_of_them(
    gate: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = gate

    def attempt() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as client,
            suppress(BrokenPipeError, ConnectionResetError),
        ):
            client.sendall(b"PING")
            return client.recv(4)
        return b""

    def hasty() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"PING")  # and close before anybody looks

    assert [as_other_user(attempt) for _ in range(3)] == [b"", b"", b""]
    assert as_other_user(hasty) is None
    process.kill()
    assert process.stderr is not None
    log = process.stderr.read().splitlines()
    assert [line.split(" ", 1)[1] for line in log] == [
        f"refused a connection of uid {UID}, expected uid 0; others of this minute are not logged"
    ]


@only_as_root
def test_password_is_not_sent_to_a_broker_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("canary")
    (port,) = free_ports(1)
    failures: list[BaseException] = []

    def connect() -> None:
        _wait_for(port)
        try:
            gateway.connect_kafka(port, tmp_path / "password")
        except ConnectionError as error:
            failures.append(error)

    def listen() -> bytes:
        found = b""
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(60)
            for _ in range(2):  # the one that waits for it, then the gateway's
                with server.accept()[0] as client:
                    client.settimeout(30)
                    found += _received(client)
        return found

    thread = threading.Thread(target=connect)
    thread.start()
    assert as_other_user(listen) == b""
    thread.join()
    assert [str(failure) for failure in failures] == [f"the broker's port belongs to uid {UID}"]


def test_gateway_imports_little(tmp_path: Path) -> None:
    code = "import sys, headrace.local.gateway; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"kafka", "redis", "psycopg", "psutil"} & set(found)
