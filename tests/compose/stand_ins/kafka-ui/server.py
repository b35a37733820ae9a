#!/usr/local/bin/python
"""/actuator/health: up while the brokers of the first cluster answer."""

import http.server
import json
import os
import signal
import socket
import sys


class Health(http.server.BaseHTTPRequestHandler):
    """The one page."""

    def do_GET(self) -> None:
        """UP with 200, DOWN with 503, as the original's framework has it."""
        if self.path != "/actuator/health":
            self.send_error(404)
            return
        host, _, port = os.environ["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"].partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
            status, state = 200, "UP"
        except OSError:
            status, state = 503, "DOWN"
        body = json.dumps({"status": state}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a container's first process has no default for it
http.server.ThreadingHTTPServer(("", 8080), Health).serve_forever()
