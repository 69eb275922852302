"""A real SMTP server on this machine, and spans of slow requests to be mailed about."""

from __future__ import annotations

import asyncio

# Before the first tracer provider: the SDK's own hook for forks submits to a pool, whose lock is freed in a child by a
# hook that must have been registered earlier.
import concurrent.futures.thread  # noqa: F401
import contextlib
import email
import email.policy
import socket
import ssl
import threading
import time

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_introspect import semconv

STACK = """\
  File "/srv/shop/views.py", line 12, in invoices
    total = sum_up(rows)
  File "/srv/shop/totals.py", line 7, in sum_up
    time.sleep(3)"""


class Inbox:
    """What arrived; may be told to refuse or to take its time."""

    def __init__(self):
        self.mails = []
        self.recipients = []
        self.logins = []
        self.refuse = ""
        self.seconds = 0.0

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's
        if self.refuse == "RCPT":
            return "550 5.1.1 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's
        await asyncio.sleep(self.seconds)
        if self.refuse == "DATA":
            return "554 5.6.0 not that"
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    def login(self, server, session, envelope, mechanism, data):
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"s3cret pass", handled=False)

    def wait(self, count=1, seconds=10.0):
        deadline = time.monotonic() + seconds
        while len(self.mails) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.mails

    @property
    def told(self):
        """How many requests its mails stand for."""
        return sum(int(mail["X-Otel-Introspect-Requests"]) for mail in self.mails)


@contextlib.contextmanager
def smtp_server(*, tls="", login=False, port=0):
    """A server that is running; yields its inbox, its port and the authority that has signed for it."""
    inbox, authority = Inbox(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    options = {"tls": {"ssl_context": context}, "starttls": {"tls_context": context, "require_starttls": True}}.get(
        tls, {}
    )
    if login:
        # aiosmtpd warns of one that insists on a login without TLS, and takes TLS from the start for none.
        options |= {
            "authenticator": inbox.login,
            "auth_required": tls == "starttls",
            "auth_require_tls": tls == "starttls",
        }
    controller = Controller(inbox, hostname="127.0.0.1", port=port or free_port(), **options)
    controller.start()
    try:
        yield inbox, controller.port, authority
    finally:
        asyncio.run_coroutine_threadsafe(_conversations_over(), controller.loop).result(10)
        controller.stop()


async def _conversations_over():
    # A client leaves without waiting for an answer: stopped before it has noticed, the server leaves a socket open.
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(others, timeout=1) if others else None
    for _ in range(5):
        await asyncio.sleep(0)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def silent_server():
    """One that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


def exporting(exporter):
    """A tracer whose spans are exported on the thread that ends them."""
    provider = TracerProvider(resource=Resource({"service.name": "shop", "host.name": "web-3", "process.pid": 4711}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer(__name__)


def slow_request(
    tracer, *, route="invoices/<int:year>/", function="sum_up", url="https://shop.example/invoices/2024/?page=2", **more
):
    """A request that took 2 s, as the watchdog and the HTTP instrumentation leave it; returns its trace id."""
    start = time.time_ns()
    span = tracer.start_span(
        f"GET {route}",
        kind=trace.SpanKind.SERVER,
        start_time=start,
        attributes={
            "http.request.method": "GET",
            "url.full": url,
            "http.route": route,
            "http.response.status_code": 200,
            semconv.SLOW: True,
            semconv.SNAPSHOTS: 2,
            **more.pop("attributes", {}),
        },
    )
    for index, elapsed in enumerate((1000, 2000)):
        span.add_event(
            semconv.STACK_SNAPSHOT_EVENT,
            {
                "code.stacktrace": STACK,
                "code.function.name": function,
                "code.file.path": "/srv/shop/totals.py",
                "code.line.number": 7,
                "thread.id": 140,
                "thread.name": "MainThread",
                semconv.ELAPSED_MS: elapsed,
                semconv.THRESHOLD_MS: 1000,
                semconv.SNAPSHOT_INDEX: index,
                semconv.OBSERVER: "thread",
                **more.get("event", {}),
            },
            timestamp=start + elapsed * 1_000_000,
        )
    for name, attributes in more.get("events", ()):
        span.add_event(name, attributes, timestamp=start)
    span.end(start + more.get("seconds", 2) * 1_000_000_000)
    return f"{span.get_span_context().trace_id:032x}"


def mail_threads():
    return [thread for thread in threading.enumerate() if thread.name == "otel-introspect-mail"]
