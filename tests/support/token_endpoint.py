"""An OAuth 2 endpoint that issues Kafka's unsecured tokens (JWT without a signature) for client credentials."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from tests.support.certificates import Authority

CLIENT, SECRET, SCOPE = "etl", "canary-of-0auth/+", "kafka"


def unsecured_token(subject: str, lifetime_s: float = 300) -> str:
    """A token that a broker takes without looking for a signature."""
    now = time.time()
    claims = {"sub": subject, "iat": now, "exp": now + lifetime_s, "jti": f"canary-token-{now}"}
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), ""])


class TokenEndpoint:
    """Answers POST /token over TLS; issued: all its tokens. subject: who they are for. status: of every answer."""

    def __init__(self, authority: Authority) -> None:
        self.issued: list[str] = []
        self.subject, self.status, self.lifetime_s = "etl", 200, 300.0
        endpoint = self
        basic = base64.b64encode(f"{CLIENT}:canary-of-0auth%2F%2B".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                expected = {"grant_type": ["client_credentials"], "scope": [SCOPE]}
                if self.headers["Authorization"] != f"Basic {basic}" or form != expected:
                    self._answer(401, {"error": "invalid_client", "error_description": f"not {SECRET}"})
                elif endpoint.status != 200:
                    self._answer(endpoint.status, {"error": "temporarily_unavailable"})
                else:
                    endpoint.issued.append(unsecured_token(endpoint.subject, endpoint.lifetime_s))
                    self._answer(200, {"access_token": endpoint.issued[-1], "expires_in": endpoint.lifetime_s})

            def _answer(self, status: int, document: dict[str, object]) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", endpoint.url)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.sign("tokens", "127.0.0.1").both)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/token"

    @contextmanager
    def serving(self) -> Iterator["TokenEndpoint"]:
        """Answer until the block ends."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
