"""Knock at one endpoint, as a process of its own: nothing, not even a name server, can then keep the doctor waiting.

Standard library only, and nothing of this package: it is started by its path, isolated, in a fraction of the time.
Reads one JSON object (a ``Target``) from standard input and writes one JSON object a line: ``{"at": <step>}`` before
each step, at the end the ``Answer``. When its time is up its own alarm kills it; the last line says what it waited for.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Step = Literal["resolve", "connect", "tls", "request"]
Outcome = Literal["resolve", "connect", "tls", "request", "http", "http2", "foreign", "silent"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What an HTTP/2 client says first, with empty settings."""
_FRAME_HEADER: Final = 9
_SETTINGS_TYPE: Final = 4
# Of the time for one endpoint, so that a server which accepts and is silent is not taken for one that does not answer.
_LISTEN_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Target:
    """What to knock at.

    Args:
        kind: ``http`` posts an empty export request, ``grpc`` opens HTTP/2, ``tcp`` only connects.
        host: Name or address.
        port: Port.
        tls: Whether it speaks TLS.
        path: Path and query, for ``http``.
        headers: What the exporter would send along, for ``http``.
        authorities: File with the certificates to trust; empty for the system's.
        certificate: File with the client's own certificate; empty for none.
        key: File with its key.
        seconds: How long all of it may take.
    """

    kind: Literal["http", "grpc", "tcp"]
    host: str
    port: int
    tls: bool = False
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    authorities: str = ""
    certificate: str = ""
    key: str = ""
    seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of it.

    Args:
        outcome: The step that failed, or what was met: ``http`` (with *status*), ``http2``, ``foreign`` (said
            something that is not HTTP/2), ``silent`` (connected; said nothing, or was not asked).
        detail: The error in words, or the place of a redirect.
        status: HTTP status.
    """

    outcome: Outcome
    detail: str = ""
    status: int = 0


def knock(target: Target, step: Callable[[Step], None]) -> Answer:
    """Resolve, connect, and say what the exporter would say, without any telemetry."""
    step("resolve")
    try:
        addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Answer(outcome="resolve", detail=str(error))
    step("connect")
    connected = _connect(addresses, target.seconds)
    if isinstance(connected, Answer):
        return connected
    with connected as connection:
        if target.kind == "tcp":
            return Answer(outcome="silent")
        if not target.tls:
            return _converse(connection, target, step)
        step("tls")
        try:
            dressed = _with_tls(connection, target)
        except (OSError, ValueError) as error:
            return Answer(outcome="tls", detail=str(error))
        with dressed:
            return _converse(dressed, target, step)


def _converse(connection: socket.socket, target: Target, step: Callable[[Step], None]) -> Answer:
    step("request")
    try:
        return _post(connection, target) if target.kind == "http" else _open_http2(connection)
    except (OSError, ValueError) as error:  # among them a server that closes without an answer
        return Answer(outcome="request", detail=str(error) or type(error).__name__)
    except http.client.HTTPException:
        # Its text is what the server said: bytes of another protocol.
        return Answer(outcome="request", detail="what it says is not HTTP/1")


def _connect(addresses: Sequence[tuple[Any, ...]], seconds: float) -> socket.socket | Answer:
    error: OSError | None = None
    for family, kind, protocol, _name, address in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(seconds)
        try:
            connection.connect(address)
        except OSError as failure:
            connection.close()
            error = failure
        else:
            return connection
    return Answer(outcome="connect", detail=str(error))


def _with_tls(connection: socket.socket, target: Target) -> socket.socket:
    context = ssl.create_default_context(cafile=target.authorities or None)
    if target.certificate:
        context.load_cert_chain(target.certificate, target.key or None)
    if target.kind == "grpc":
        context.set_alpn_protocols(["h2"])
    return context.wrap_socket(connection, server_hostname=target.host)


def _post(connection: socket.socket, target: Target) -> Answer:
    client = http.client.HTTPConnection(target.host, target.port)
    client.sock = connection
    # Zero bytes are an ExportTraceServiceRequest without spans.
    headers = {"Content-Type": "application/x-protobuf", "User-Agent": "otel-introspect-doctor", **target.headers}
    client.request("POST", target.path, body=b"", headers=headers)
    response = client.getresponse()
    return Answer(outcome="http", status=response.status, detail=response.getheader("Location") or response.reason)


def _open_http2(connection: socket.socket) -> Answer:
    connection.settimeout(_LISTEN_SECONDS)
    heard = b""
    try:
        connection.sendall(_PREFACE)
        while len(heard) < _FRAME_HEADER:
            more = connection.recv(_FRAME_HEADER - len(heard))
            if not more:
                break
            heard += more
    except OSError:
        pass  # it did accept the connection, and some proxies say nothing until they are asked for a service
    if not heard:
        return Answer(outcome="silent")
    # A frame's header: three bytes of length, one of type. The first frame of an HTTP/2 server is its settings.
    if len(heard) == _FRAME_HEADER and heard[3] == _SETTINGS_TYPE:
        return Answer(outcome="http2")
    return Answer(outcome="foreign")


def main() -> None:
    """Knock at what standard input says."""
    target = Target(**json.load(sys.stdin))
    if hasattr(signal, "setitimer"):
        # The default action ends the process even inside the resolver's C code. A parent may have left the POSIX signal
        # ignored or blocked.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, target.seconds)
    answer = knock(target, lambda step: _say({"at": step}))
    _say(asdict(answer))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
