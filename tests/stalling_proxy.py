"""A TCP proxy that stops answering without closing anything, as a frozen server or a lossy network does."""

import socket
import threading
from contextlib import suppress

_CHUNK = 65_536


class StallingProxy:
    """Listens on a free port of 127.0.0.1 before a server there; close() ends all of it.

    silent: connections are accepted, and nothing is forwarded. stall_at: bytes of a request; from the one that holds
    them on its connection is frozen in both directions.
    """

    def __init__(self, target_port: int | None = None) -> None:
        self.silent = target_port is None
        self.stall_at: bytes | None = None
        self.accepted = 0
        self._target = target_port
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "StallingProxy":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def heal(self) -> None:
        """Answer again; what is frozen ends, as where a network comes back."""
        self.silent, self.stall_at = self._target is None, None
        self._close(*self._ends)
        self._ends.clear()

    def close(self) -> None:
        """Close the listener and every connection."""
        self._close(self._listener, *self._ends)

    @staticmethod
    def _close(*ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                self._ends.append(client)
                if self.silent:
                    continue
                server = socket.create_connection(("127.0.0.1", self._target or 0))
                self._ends.append(server)
                for reader, writer, is_request in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._forward, args=(reader, writer, is_request), daemon=True).start()

    def _forward(self, reader: socket.socket, writer: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := reader.recv(_CHUNK):
                if is_request and self.stall_at is not None and self.stall_at in data:
                    return  # it stays open, and no thread reads it any more
                writer.sendall(data)
            writer.shutdown(socket.SHUT_WR)
