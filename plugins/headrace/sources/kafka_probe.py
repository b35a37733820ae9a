"""Find out why a broker refuses a connection: kafka-python at best logs the reason, and reports no answer."""

import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

TIMEOUT_S = 3.0
ALERT_TIMEOUT_S = 0.5  # TLS 1.3: a server refuses a client's certificate only after the handshake
RESPONSE_BYTES_MAX = 65_536
SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 36  # API keys (Kafka protocol); requests of versions 1 and 0


def why_refused(config: Mapping[str, Any]) -> str | None:
    """Why the first reachable broker refuses this client, or why the client refuses the broker; None if neither does.

    config: kafka-python's options. Unreachable brokers are skipped.
    """
    for server in config["bootstrap_servers"]:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain:
                return _why_refused_at(plain, host, config)
        except (OSError, ValueError, struct.error):  # out of reach, or no broker
            continue
    return None


def tls_context(config: Mapping[str, Any]) -> ssl.SSLContext:
    """The TLS context of kafka-python for the same options; raises ssl.SSLError or ValueError for invalid files."""
    context = ssl.create_default_context(cafile=config.get("ssl_cafile"))
    if "ssl_certfile" in config:
        # an empty password, not None: OpenSSL would prompt on the terminal
        context.load_cert_chain(config["ssl_certfile"], config.get("ssl_keyfile"), config.get("ssl_password", ""))
    return context


def reason_of(error: ssl.SSLError | ValueError) -> str:
    """OpenSSL's reason as words."""
    return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")


def _why_refused_at(plain: socket.socket, host: str, config: Mapping[str, Any]) -> str | None:
    protocol = config.get("security_protocol", "PLAINTEXT")
    if "SSL" not in protocol:
        return _wants_tls(plain, protocol) if protocol == "PLAINTEXT" else _why_no_login(plain, config)
    try:
        with tls_context(config).wrap_socket(plain, server_hostname=host) as secured:
            if "SASL" in protocol:
                return _why_no_login(secured, config)
            secured.settimeout(ALERT_TIMEOUT_S)
            with suppress(TimeoutError):
                secured.recv(1)
            return None
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message}"
    except ssl.SSLError as error:
        reason, mine = reason_of(error), config.get("ssl_certfile")
        if "alert" in reason and "certificate" in reason:
            return f"it does not take the certificate {mine}: {reason}" if mine else f"it wants a certificate: {reason}"
        return f"found {reason}, expected a listener that speaks TLS, as {protocol} does"


def _wants_tls(plain: socket.socket, protocol: str) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only detects TLS; nothing is sent
    try:
        context.wrap_socket(plain).close()
    except ssl.SSLError as error:
        if "alert" not in reason_of(error):  # that would be TLS's own
            return None
    return f"found a listener that speaks TLS, expected {protocol}"


def _why_no_login(connection: socket.socket, config: Mapping[str, Any]) -> str | None:
    """Log in as kafka-python would (KIP-152): the mechanism's name, then its messages, each in a request."""
    from kafka.net.sasl import get_sasl_mechanism

    user, name = config.get("sasl_plain_username", "of AWS"), config["sasl_mechanism"]
    response = _ask(connection, SASL_HANDSHAKE, 1, _text(name))
    (code, count), at = struct.unpack_from(">hi", response), 6
    offered: list[str] = []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", response, at)
        offered.append(response[at + 2 : at + 2 + length].decode())
        at += 2 + length
    if code:
        return f"found {name}, expected a mechanism that it takes: {', '.join(sorted(offered))}"
    mechanism = get_sasl_mechanism(name)(host="", **config)
    while not mechanism.is_done():
        token = mechanism.auth_bytes()
        response = _ask(connection, SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        code, length = struct.unpack_from(">hh", response)
        at = 4 + max(length, 0)
        if code:
            said = response[4:at].decode(errors="replace")
            return f"user {user} is refused: {said or f'error {code}'}"
        (length,) = struct.unpack_from(">i", response, at)
        mechanism.receive(response[at + 4 : at + 4 + length])
    return None


def _ask(connection: socket.socket, api_key: int, version: int, body: bytes) -> bytes:
    """Send a request (header version 1) and return its answer, without the correlation id; OSError without one."""
    request = struct.pack(">hhi", api_key, version, 1) + _text("headrace") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(connection, 4))
    return _read(connection, min(max(size, 0), RESPONSE_BYTES_MAX))[4:]


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise ConnectionResetError("the broker closed the connection")
        found += more
    return found


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()
