"""What all that take OTLP over HTTP have in common."""

from __future__ import annotations

import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class HttpReceiver:
    """One thread, one connection at a time unless *server* is another; at any free port, if none is given."""

    def __init__(self, port=0, server=HTTPServer):
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                with receiver._came:
                    receiver.keep(self.path, body)
                    receiver._came.notify_all()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self._server = server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def keep(self, path, body):
        """Keep what was sent to *path*; nobody else looks meanwhile."""
        raise NotImplementedError

    def wait_until(self, find, count, seconds):
        """What *find* returns, as soon as that are *count*, or when the time is over."""
        deadline = time.monotonic() + seconds
        with self._came:
            while True:
                found = find()
                left = deadline - time.monotonic()
                if len(found) >= count or left <= 0:
                    return found
                self._came.wait(left)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
