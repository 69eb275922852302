"""An OTLP/HTTP endpoint on the loopback interface: what arrives goes into a file of JSON lines and to the driver.

The workers send here, rather than each writing the file: lines of several processes would get into each other, and
here they are seen as they arrive.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_MAX_BODY: Final = 32 * 2**20
_IDS: Final = ("traceId", "spanId", "parentSpanId")


def otlp_json(body: bytes) -> dict[str, Any]:
    """An ExportTraceServiceRequest in protobuf as OTLP JSON has it.

    That is protobuf's JSON mapping but for two things: ids are hexadecimal, enumerations are numbers.
    """
    request: dict[str, Any] = MessageToDict(ExportTraceServiceRequest.FromString(body), use_integers_for_enums=True)
    for resource_spans in request.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            for span in scope_spans.get("spans", ()):
                for holder in (span, *span.get("links", ())):
                    for key in _IDS:
                        if key in holder:
                            holder[key] = base64.b64decode(holder[key]).hex()
    return request


class SpanReceiver:
    """Receives spans from its making to the end of its ``with`` block.

    Args:
        path: The file to write; what was in it is gone.
        arrived: Called for each request, as OTLP JSON, on a thread of the receiver's.
        forward: Called for each request, as it came.
    """

    def __init__(
        self, path: Path, arrived: Callable[[dict[str, Any]], None], forward: Callable[[bytes], None] | None = None
    ) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._arrived = arrived
        self._forward = forward
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # of a connection that says nothing

            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, *_args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        except OSError:
            self._file.close()
            raise
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="demo-receiver", daemon=True
        )

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` has to be."""
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def __enter__(self) -> SpanReceiver:  # noqa: PYI034 - Self is in typing from 3.11 on
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        with self._lock:
            self._file.close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MAX_BODY:
            handler.send_error(413)
            return
        body = handler.rfile.read(length)
        try:
            if handler.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = otlp_json(body)
        except Exception:  # noqa: BLE001 - DecodeError, BadGzipFile: whoever sent that is not one of our workers
            handler.send_error(400)
            return
        self._take(request, body)
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.send_header("Content-Length", "0")  # an empty ExportTraceServiceResponse has no bytes
        handler.end_headers()

    def _take(self, request: dict[str, Any], body: bytes) -> None:
        if not request.get("resourceSpans"):
            return
        with self._lock:
            if self._file.closed:
                return
            self._file.write(json.dumps(request, separators=(",", ":")) + "\n")
            self._file.flush()
        self._arrived(request)
        if self._forward is not None:
            self._forward(body)
