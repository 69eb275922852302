"""A mail about a slow request, from a real server to a real one."""

from __future__ import annotations

import email
import email.policy
import time

import pytest
from services import GUNICORN, free_port

pytestmark = pytest.mark.realtime

controller = pytest.importorskip("aiosmtpd.controller")


class Inbox:
    def __init__(self):
        self.mails = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    def wait(self, count, seconds):
        deadline = time.monotonic() + seconds
        while len(self.mails) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.mails


@pytest.fixture(name="inbox")
def _inbox():
    inbox = Inbox()
    server = controller.Controller(inbox, hostname="127.0.0.1", port=free_port())
    server.start()
    inbox.port = server.port

    yield inbox

    time.sleep(0.2)  # the server has yet to notice that its client has left
    server.stop()


def test_gunicorn_and_django_s_mail_settings(services, inbox):
    """
    A slow view makes one mail with its stack and its trace; what was slow again meanwhile is told as the process ends.
    """
    service = services.start(
        "mails",
        command=[*GUNICORN, "-w", "1", "wsgi"],
        DJANGO_SETTINGS_MODULE="mail_settings",
        PROJECT_SMTP_PORT=inbox.port,
        OTEL_TRACES_EXPORTER="otlp_proto_http,introspect_email",
        OTEL_PYTHON_INTROSPECT_EMAIL_TO="ops@shop.example",
        OTEL_PYTHON_INTROSPECT_EMAIL_LINK="http://localhost:16686/trace/{trace_id}",
    )
    try:
        span = service.ask("/slow?seconds=0.6")
        (mail,) = inbox.wait(1, 15)
        for _ in range(2):
            service.get("/slow?seconds=0.6")
    finally:
        service.stop()
    first, last = inbox.wait(2, 5)
    body = first.get_content()

    assert first is mail
    assert (first["From"], first["To"]) == ("shop@shop.example", "ops@shop.example")
    assert "in sleeping_helper" in body
    assert "time.sleep(seconds)  # the line that sleeps" in body
    assert f"http://localhost:16686/trace/{span.trace_id}" in body
    assert f"http://127.0.0.1:{service.port}/slow?seconds=0.6" in body
    assert first["X-Otel-Introspect-Requests"] == "1"
    assert last["X-Otel-Introspect-Requests"] == "2"
    assert [line for line in service.log.splitlines() if "otel_introspect" in line] == []


def test_a_server_that_leaves_by_its_signal(services, inbox):
    """
    What was slow again is told as uvicorn ends, which kills itself by the POSIX signal that it was stopped by.
    """
    service = services.start(
        "uvicorn",
        OTEL_TRACES_EXPORTER="introspect_email",
        OTEL_PYTHON_INTROSPECT_EMAIL_TO="ops@shop.example",
        OTEL_PYTHON_INTROSPECT_EMAIL_HOST="127.0.0.1",
        OTEL_PYTHON_INTROSPECT_EMAIL_PORT=inbox.port,
    )
    try:
        service.get("/slow?seconds=0.6")
        inbox.wait(1, 15)
        for _ in range(2):
            service.get("/slow?seconds=0.6")
    finally:
        service.stop()

    assert [mail["X-Otel-Introspect-Requests"] for mail in inbox.wait(2, 5)] == ["1", "2"]
