"""A TCP proxy in front of Postgres that reads the client's messages and cuts the connection at a chosen one.

It understands as much of the protocol as it takes to see a COMMIT and COPY's data go by (PostgreSQL 18, chapter 54.7:
a type byte, four bytes of length; only the first message of a connection has no type).
"""

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

How = Literal["before", "after", "doubt", "copy", "silence"]

COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
COPY_DATA = b"d"


@dataclass
class Cut:
    """One fault: at the nth COMMIT (or COPY) of any connection.

    before: the COMMIT is not forwarded. after: it is, and its answer is dropped. doubt: it is, and no client waits for
    an answer. copy: half of COPY's data is forwarded. silence: nothing is forwarded any more and nothing is closed,
    until `heal`.
    """

    how: How
    nth: int
    seen: int = 0
    fired: threading.Event = field(default_factory=threading.Event)
    healed: threading.Event = field(default_factory=threading.Event)

    def heal(self) -> None:
        """End a silence with a reset, like a network that recovers."""
        self.healed.set()


class Proxy:
    """Listens on a free port of 127.0.0.1; connections are forwarded by threads."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._cut: Cut | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, cut: Cut) -> Cut:
        """Cut the connection once, as `cut` defines."""
        self._cut = cut
        return cut

    def disarm(self) -> None:
        """Forward everything."""
        if self._cut is not None:
            self._cut.heal()
        self._cut = None

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            line = _ProxiedConnection(self, client, server)
            threading.Thread(target=line.forward_requests, daemon=True).start()
            threading.Thread(target=line.forward_responses, daemon=True).start()

    def due(self, kind: bytes, body: bytes) -> Cut | None:
        """The cut for this message, if any."""
        cut = self._cut
        if cut is None or cut.fired.is_set():
            return None
        is_it = kind == COPY_DATA if cut.how == "copy" else kind + body == COMMIT
        if not is_it:
            return None
        with self._lock:
            cut.seen += 1
            return cut if cut.seen == cut.nth else None


class _ProxiedConnection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._drop_answers: Cut | None = None
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def forward_requests(self) -> None:
        with suppress(OSError):
            reader = self._client.makefile("rb")
            startup = _exactly(reader, 4)
            self._server.sendall(startup + _exactly(reader, struct.unpack(">i", startup)[0] - 4))
            while True:
                kind = _exactly(reader, 1)
                length = _exactly(reader, 4)
                body = length + _exactly(reader, struct.unpack(">i", length)[0] - 4)
                cut = self._proxy.due(kind, body)
                if cut is None:
                    self._server.sendall(kind + body)
                    continue
                self._obey(cut, kind + body)
                return
        self._hang_up(self._server)

    def _obey(self, cut: Cut, message: bytes) -> None:
        if cut.how == "after":
            self._drop_answers = cut  # the other thread cuts after the answer
            self._server.sendall(message)
            return
        if cut.how == "doubt":
            self._server.sendall(message)
            self._hang_up(self._server)  # a FIN after the COMMIT: the server commits, and no client reads its answer
            _reset(self._client)
            cut.fired.set()
            return
        if cut.how == "copy":
            self._server.sendall(message[: len(message) // 2])
        cut.fired.set()
        if cut.how == "silence":
            cut.healed.wait(60)
        _reset(self._server)
        _reset(self._client)

    def forward_responses(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(65_536):
                if self._drop_answers is not None:
                    _reset(self._client)
                    _reset(self._server)
                    self._drop_answers.fired.set()
                    return
                self._client.sendall(data)
        self._hang_up(self._client)

    @staticmethod
    def _hang_up(end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_WR)


def _exactly(reader: object, size: int) -> bytes:
    data: bytes = reader.read(size)  # type: ignore[attr-defined]
    if len(data) < size:
        raise ConnectionError("the client hung up")
    return data


def _reset(end: socket.socket) -> None:
    """Close with a reset: the other side gets an error, not an end of file."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        end.close()
