"""Prometheus and promtool of Debian's package, and an endpoint that they scrape."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from headrace.monitor.metrics import CONTENT_TYPE
from tests.support.debian import cache_folder, unpacked
from tests.support.your_airflow import free_port

LIMIT_S = 120


def programs() -> Path:
    """The folder with prometheus and promtool. Raises PackageNotAvailable."""
    return unpacked(cache_folder() / "prometheus", ("prometheus",), print) / "usr/bin"


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The result of promtool, run in a folder."""
    argv = [str(programs() / "promtool"), *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT_S)


class MetricsEndpoint:
    """An HTTP server of metrics, which admits one token and counts its requests."""

    def __init__(self, token: str, text: bytes) -> None:
        self.text, self.paths, self.refused = text, set[str](), 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers["Authorization"] != f"Bearer {token}":
                    endpoint.refused += 1
                    self.send_error(401)
                    return
                endpoint.paths.add(self.path)
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                self.wfile.write(endpoint.text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["MetricsEndpoint"]:
        """Answer requests until the block ends."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=10, trust_env=False)

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; an error's text fails the test."""
        answer = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        found: list[dict[str, Any]] = self.get("/query", query=expression)["result"]
        return found

    def wait_for(self, expression: str) -> None:
        """Wait until a query has a sample."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                if self.query(expression):
                    return
            except (httpx.HTTPError, ValueError):  # not yet started
                pass
            assert time.monotonic() < deadline, f"no sample of {expression}"
            time.sleep(0.2)


@contextmanager
def running(config: Path, log: Path) -> Iterator[Prometheus]:
    """A Prometheus with this configuration; its data are beside it."""
    address = f"127.0.0.1:{free_port()}"
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address={address}",
    ]
    with log.open("w") as output:
        process = subprocess.Popen([programs() / "prometheus", *options], stdout=output, stderr=output)
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait(30)
