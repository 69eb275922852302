"""The same spans to a collector or a Jaeger that is running anyway."""

from __future__ import annotations

import queue
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

_LOCAL: Final = ("localhost", 4318)
_LOOK_SECONDS: Final = 0.5
_SEND_SECONDS: Final = 5.0
_MAX_WAITING: Final = 256


@dataclass(frozen=True)
class Destination:
    """Where to send.

    Args:
        url: With ``/v1/traces``.
        headers: What ``OTEL_EXPORTER_OTLP_HEADERS`` adds.
    """

    url: str
    headers: Mapping[str, str]

    def jaeger(self, service: str) -> str:
        """Where Jaeger's own pages are, if that is what it is."""
        return f"http://{urlsplit(self.url).hostname}:16686/search?service={service}"


def destination(environ: Mapping[str, str]) -> Destination | None:
    """What the environment names, or this machine's usual port if somebody listens there."""
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not url and base:
        url = base.rstrip("/") + "/v1/traces"
    if not url and _somebody_listens():
        url = f"http://{_LOCAL[0]}:{_LOCAL[1]}/v1/traces"
    if not url.startswith(("http://", "https://")):
        return None
    return Destination(url, _headers(environ))


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    given = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    pairs = (pair.partition("=") for pair in given.split(",") if "=" in pair)
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}


def _somebody_listens() -> bool:
    try:
        with socket.create_connection(_LOCAL, timeout=_LOOK_SECONDS):
            return True
    except OSError:
        return False


class Forwarder:
    """Sends requests on from a thread of its own, so that a slow destination holds nothing up.

    Args:
        to: Where to.
    """

    def __init__(self, to: Destination) -> None:
        self.sent = 0
        self.problem = ""
        self.to = to
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="demo-forwarder", daemon=True)
        self._thread.start()

    def __call__(self, body: bytes) -> None:
        """Send *body* soon."""
        try:
            self._waiting.put_nowait(body)
        except queue.Full:
            self.problem = "it is too slow"

    def finish(self, seconds: float) -> None:
        """Wait until all is sent, for *seconds* at most."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (body := self._waiting.get()) is not None:
            headers = {**self.to.headers, "Content-Type": "application/x-protobuf"}
            try:
                request = urllib.request.Request(self.to.url, body, headers)  # noqa: S310 - http(s) only, see destination()
                with urllib.request.urlopen(request, timeout=_SEND_SECONDS):  # noqa: S310
                    self.sent += 1
            except urllib.error.HTTPError as error:
                self.problem = f"HTTP status {error.code} ({error.reason})"
                error.close()
            except Exception as error:  # noqa: BLE001 - refused, unreachable, not HTTP at all: told once, at the end
                self.problem = str(getattr(error, "reason", None) or error)
