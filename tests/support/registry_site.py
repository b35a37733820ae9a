"""A schema registry of set answers, for what a real one does not do when it is asked to."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.certificates import Certificate

NOT_FOUND = (404, {"error_code": 40403, "message": "Schema not found"})


class Site:
    """An HTTP server whose answers are set; it notes requests and their Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.url = ""


@contextmanager
def served(
    found: Site, certificate: Certificate | None = None, clients: Path | None = None, *, port: int = 0
) -> Iterator[Site]:
    """Serve the site's answers, by TLS with a certificate; clients: who signs those of clients, who must have one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found.requests.append(path)
            found.authorizations.append(self.headers.get("Authorization"))
            status, body = found.answers.get(path, (404, "<html>no such page</html>"))
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        scheme = "http"
        if certificate is not None:
            context, scheme = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https"
            context.load_cert_chain(certificate.certificate, certificate.key)
            if clients is not None:
                context.load_verify_locations(clients)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found.url = f"{scheme}://127.0.0.1:{server.server_port}/api"
        yield found
        server.shutdown()
