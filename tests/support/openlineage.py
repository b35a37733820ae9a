"""Airflow's provider for OpenLineage in a folder of its own, and a receiver of its events."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.overlays import overlay

PACKAGES = (
    "apache-airflow-providers-openlineage==2.20.3",
    "openlineage-integration-common==1.54.0",
    "openlineage-python==1.54.0",
    "openlineage-sql==1.54.0",
    "sqlglot==30.30.0",
)


def installed() -> Path:
    """A folder with the extra `openlineage`: in the venv the provider would cost each task time."""
    return overlay(*PACKAGES)


@contextmanager
def receiver(events: list[dict[str, Any]], path: str = "/api/v1/lineage") -> Iterator[str]:
    """The URL of an HTTP server that appends each document that it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == path:
                events.append(json.loads(body))
            self.send_response(200 if self.path == path else 404)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
