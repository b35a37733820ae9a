"""Admits to a local server only connections of the user that runs it: a process in front of the server.

A listener on 127.0.0.1 is open to every user of the machine, and clients that find their server in the environment
have no password. So Kafka and Valkey listen where no other user can connect, and a gateway listens on the known port.
It asks the kernel which user is at the other end of a connection, logs in at the server if that is needed, and moves
bytes.
"""

import errno
import os
import re
import resource
import socket
import struct
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from headrace.private_files import read_bounded

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1  # linux/netlink.h, linux/sock_diag.h
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # proc_pid_net(5)
LOOKUPS = 3
ESTABLISHED = 1  # the only state in which the kernel reports the user reliably
SERVER_LIMIT_S = 120.0  # how long the server may take to listen: recovery after a crash
LOGIN_LIMIT_S = 30.0
LOG_INTERVAL_S = 60.0  # refused connections are logged at most so often: another user could fill the disk
CHUNK_BYTES = 1024 * 1024
PASSWORD_BYTES_MAX = 1024
SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 36  # API keys (Kafka protocol); their versions 1 and 0 are used
KAFKA_USER = "headrace"

Address = tuple[str, int]
ConnectSocket = Callable[[], socket.socket]


def to_socket(port: int, path: str) -> list[str | Path]:
    """The command line of a gateway from a port to a server's Unix socket; the path may be relative."""
    return [sys.executable, "-m", __name__, str(port), "--socket", path]


def to_kafka(port: int, broker_port: int, password_file: Path) -> list[str | Path]:
    """The command line of a gateway from a port to a broker's listener with SASL."""
    return [sys.executable, "-m", __name__, str(port), "--kafka", str(broker_port), "--password", password_file]


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end of a connection over 127.0.0.1; None if the kernel does not report it.

    What was closed at the other end may be listed as of uid 0: only an established connection counts, not one that
    is half closed, and ours must be so after the look, too, or its address may be another's by then.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
    except OSError:  # reset already
        return None
    try:
        uid = _uid_by_netlink(theirs, ours)
    except OSError:  # a sandbox may have /proc alone
        uid = _uid_by_table(theirs, ours)
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return uid if state == ESTABLISHED else None


def _uid_by_netlink(local: Address, remote: Address) -> int | None:
    """Ask for the user of an established connection by its two addresses (sock_diag(7)): 20 microseconds.

    A socket of both families that is connected by IPv4, as Java makes them, is found by its IPv4 addresses.
    """
    ports = struct.pack("!HH", local[1], remote[1])
    addresses = b"".join(socket.inet_aton(host) + bytes(12) for host, _ in (local, remote))
    wanted = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 1 << ESTABLISHED) + ports + addresses
    wanted += struct.pack("=I8s", 0, b"\xff" * 8)  # of any interface and cookie
    header = struct.pack("=IHHII", 16 + len(wanted), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.sendall(header + wanted)
        response = netlink.recv(4096)
    (kind,) = struct.unpack_from("=4xH", response)
    if kind != SOCK_DIAG_BY_FAMILY:
        (error,) = struct.unpack_from("=i", response, 16)
        if -error != errno.ENOENT:
            raise OSError(-error, os.strerror(-error))
        return None
    state, uid, inode = struct.unpack_from("=xB2x48x12xII", response, 16)
    is_same = response[20:24] == ports  # else a listener that would take such a connection
    return int(uid) if state == ESTABLISHED and inode and is_same else None


def _uid_by_table(local: Address, remote: Address) -> int | None:
    """Look it up in /proc/net: 50 milliseconds, and an entry may be passed over while others come and go."""
    pattern = re.compile(
        rb": [0-9A-F]*%b [0-9A-F]*%b 01 \S+ \S+ \S+ +(\d+) +\d+ [1-9]" % (_entry(local), _entry(remote))
    )
    for _ in range(LOOKUPS):
        found = {int(entry[1]) for table in TABLES if table.exists() for entry in pattern.finditer(table.read_bytes())}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


class Gateway:
    """Forwards connections of this user and root from a listener to a server, until the server is gone."""

    def __init__(self, listener: socket.socket, connect: ConnectSocket) -> None:
        self._listener = listener
        self._connect = connect
        self._admitted = {os.geteuid(), 0}  # root can read the password
        self._logged_at = -LOG_INTERVAL_S

    def serve(self) -> None:
        """Accept connections for ever."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError as error:  # no descriptors are left: some will be given back
                _log(f"a connection could not be accepted: {error}")
                time.sleep(0.1)
                continue
            uid = peer_uid(client)
            if uid in self._admitted:
                try:
                    threading.Thread(target=self._forward, args=(client,), daemon=True).start()
                except RuntimeError as error:  # no more threads are allowed
                    _log(f"a connection could not be served: {error}")
                    client.close()
            else:
                client.close()
                self._log_refusal(uid)

    def _forward(self, client: socket.socket) -> None:
        with client:
            try:
                server = self._connect()
            except (ConnectionRefusedError, FileNotFoundError):
                _log("the server is gone: this gateway ends")
                os._exit(1)  # clients are refused, as without a gateway
            except (OSError, struct.error) as error:
                _log(f"no connection to the server: {error}")
                return
            with server:
                back = threading.Thread(target=_move, args=(server, client, socket.SHUT_RDWR), daemon=True)
                back.start()
                _move(client, server, socket.SHUT_WR)  # answers may still come
                back.join()

    def _log_refusal(self, uid: int | None) -> None:
        if uid is not None and time.monotonic() - self._logged_at >= LOG_INTERVAL_S:  # else it is closed already
            self._logged_at = time.monotonic()
            _log(
                f"refused a connection of uid {uid}, expected uid {os.geteuid()}; others of this minute are not logged"
            )


def _move(source: socket.socket, target: socket.socket, then: int) -> None:
    """Move bytes until one of both ends, then shut the target down; the kernel hands pages on, nothing is copied."""
    reader, writer = os.pipe()
    try:
        with suppress(OSError):
            while count := os.splice(source.fileno(), writer, CHUNK_BYTES):
                while count:
                    count -= os.splice(reader, target.fileno(), count)
        with suppress(OSError):
            target.shutdown(then)
    finally:
        os.close(reader)
        os.close(writer)


def connect_socket(path: str) -> socket.socket:
    """ConnectSocket to a server's Unix socket."""
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except OSError:
        server.close()
        raise
    return server


def connect_kafka(port: int, password_file: Path | None) -> socket.socket:
    """ConnectSocket to a broker's listener with SASL and log in; without a password only connect.

    The password is sent only to a broker of this user: another one may have its port while it is down.
    """
    server = socket.create_connection(("127.0.0.1", port), timeout=LOGIN_LIMIT_S)
    try:
        if password_file is not None:
            _await_accepted(server)
            password = read_bounded(password_file, PASSWORD_BYTES_MAX).strip()
            token = b"\0%b\0%b" % (KAFKA_USER.encode(), password)
            _ask_kafka(server, SASL_HANDSHAKE, 1, struct.pack(">h5s", 5, b"PLAIN"))
            _ask_kafka(server, SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        server.close()
        raise
    return server


def _await_accepted(server: socket.socket) -> None:
    """Wait until the broker has accepted a connection, which only then has a user; ConnectionError for another's."""
    deadline = time.monotonic() + LOGIN_LIMIT_S
    while (uid := peer_uid(server)) is None:
        if time.monotonic() > deadline:
            raise ConnectionError("not accepted in time")
        time.sleep(0.001)
    if uid != os.geteuid():
        raise ConnectionError(f"the broker's port belongs to uid {uid}")


def _ask_kafka(server: socket.socket, api_key: int, version: int, body: bytes) -> None:
    """Send a request (header version 1) and read its answer, which begins with an error code."""
    request = struct.pack(">hhih8s", api_key, version, 0, 8, b"headrace") + body
    server.sendall(struct.pack(">i", len(request)) + request)
    with server.makefile("rb", buffering=0) as file:
        size, _, error = struct.unpack(">iih", _read(file.read, 10))
        _read(file.read, size - 6)
    if error:
        raise ConnectionError(f"the broker answered with error {error}")


def _read(read: Callable[[int], bytes | None], size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (more := read(size - len(found))):
            raise ConnectionError("the broker closed the connection")
        found += more
    return found


def _entry(address: Address) -> bytes:
    """An IPv4 address as the kernel's tables have it: the bytes as one number of this machine."""
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return b"%08X:%04X" % (number, address[1])


def _wait_for(connect: ConnectSocket) -> None:
    deadline = time.monotonic() + SERVER_LIMIT_S
    while True:
        try:
            return connect().close()
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the server does not listen after {SERVER_LIMIT_S:.0f} s: {error}")
        time.sleep(0.05)


def _log(line: str) -> None:
    with suppress(OSError):  # a full disk must not end the gateway
        print(time.strftime("%Y-%m-%dT%H:%M:%S"), line, file=sys.stderr, flush=True)


def _check_kernel() -> None:
    """Exit if the kernel does not report users, instead of refusing all of them later."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        if peer_uid(connection) != os.geteuid():
            sys.exit("the kernel does not tell whose a connection is, expected netlink's sock_diag or /proc/net/tcp")


def main() -> None:
    """Wait for the server, then forward to it."""
    parser = ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--socket")
    parser.add_argument("--kafka", type=int)
    parser.add_argument("--password", type=Path)
    words = parser.parse_args()
    _check_kernel()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # six descriptors for each connection
    if words.socket is not None:
        connect: ConnectSocket = partial(connect_socket, words.socket)
        _wait_for(connect)
    else:
        connect = partial(connect_kafka, words.kafka, words.password)
        _wait_for(partial(connect_kafka, words.kafka, None))
    with socket.create_server(("127.0.0.1", words.port), backlog=1024) as listener:
        Gateway(listener, connect).serve()


if __name__ == "__main__":
    main()
