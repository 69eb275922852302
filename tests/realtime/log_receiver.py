"""Takes log records by OTLP over HTTP, as protobuf."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from otlp_receiver import attributes_of


@dataclass
class Record:
    name: str
    trace_id: str
    span_id: str
    flags: int
    severity: str
    time: float
    body: str
    attributes: dict
    scope: str
    came: float


def records_in(message):
    for resource_logs in message.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                attributes, _ = attributes_of(record.attributes)
                yield Record(
                    # Until OpenTelemetry 1.35 there is no field for it.
                    name=getattr(record, "event_name", "") or attributes.pop("event.name", ""),
                    trace_id=record.trace_id.hex(),
                    span_id=record.span_id.hex(),
                    flags=record.flags,
                    severity=record.severity_text,
                    time=record.time_unix_nano / 1e9,
                    body=record.body.string_value,
                    attributes=attributes,
                    scope=scope_logs.scope.name,
                    came=time.time(),
                )


class LogReceiver:
    """One thread, one connection at a time."""

    def __init__(self):
        self._records = []
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(ExportLogsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/logs"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def take(self, message):
        with self._came:
            self._records.extend(records_in(message))
            self._came.notify_all()

    def wait_for(self, chosen, *, count=1, seconds=15.0):
        """The records that are *chosen*, as soon as there are *count*."""
        deadline = time.monotonic() + seconds
        with self._came:
            while True:
                found = [each for each in self._records if chosen(each)]
                left = deadline - time.monotonic()
                if len(found) >= count or left <= 0:
                    return found
                self._came.wait(left)

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
