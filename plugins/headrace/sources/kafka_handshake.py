"""A timeout for kafka-python's TLS handshakes, which have none (3.0.12): a silent broker blocked a client for ever."""

import ssl
import time
from typing import Any

HANDSHAKE_S = 3.0  # less than the time to reach a broker, so the next broker is tried


def bound_handshakes() -> None:
    """Limit each of kafka-python's TLS handshakes to HANDSHAKE_S; idempotent."""
    from kafka.net.transport import KafkaSSLTransport  # 0.3 s of imports

    if hasattr(KafkaSSLTransport, "handshake"):
        KafkaSSLTransport.handshake = _handshake


async def _handshake(self: Any) -> None:
    timeout_at = time.monotonic() + HANDSHAKE_S
    try:
        while True:
            try:
                self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at=timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at=timeout_at)
    except BaseException:
        self._sock.close()  # the client does not own it yet
        raise
