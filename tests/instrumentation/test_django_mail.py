"""Mails about slow requests by Django's own settings."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import django
import pytest
from django.conf import settings
from django.core import mail
from django.test import override_settings

from otel_introspect.exporters import offers
from otel_introspect.exporters.carrier import Letter, NotSent
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
from otel_introspect.instrumentation.django.mail import DjangoCarrier

LETTER = Letter(recipients=("ops@shop.example",), subject="[slow] ß", body="stack\n", headers={"X-Requests": "3"})
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True, scope="module")
def _django():
    # Not on import: a site of other tests' configures Django then, and it can be configured once only.
    if not settings.configured:
        settings.configure()
        django.setup()


def by(backend, **options):
    """Django's settings for this backend, in the form that this Django wants."""
    if hasattr(mail, "mailers"):
        return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": backend, **{f"EMAIL_{name.upper()}": value for name, value in options.items()}}


@pytest.fixture(name="outbox")
def _outbox():
    with override_settings(**by(LOCMEM), DEFAULT_FROM_EMAIL="shop@shop.example"):
        mail.outbox = []
        yield mail.outbox
        del mail.outbox


def test_django_s_backend_and_sender(outbox):
    """
    The mail goes by Django's backend, from Django's default sender, with our headers.
    """
    DjangoCarrier().send(LETTER, 1.0)
    (sent,) = outbox

    assert (sent.subject, sent.body, sent.to, sent.from_email) == (
        "[slow] ß",
        "stack\n",
        ["ops@shop.example"],
        "shop@shop.example",
    )
    assert sent.message()["X-Requests"] == "3"


def test_it_is_offered_while_switched_on(outbox, monkeypatch):
    """
    Whoever sends mails finds Django's settings if Django is configured and its instrumentor on, and not otherwise.
    """
    monkeypatch.setattr(offers, "_offers", [])
    instrumentor = IntrospectDjangoInstrumentor()
    assert offers.offered() is None
    instrumentor.instrument(skip_dep_check=True)
    try:
        assert isinstance(offers.offered(), DjangoCarrier)
        monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=SimpleNamespace(configured=False)))
        assert offers.offered() is None
    finally:
        instrumentor.uninstrument()
    monkeypatch.undo()
    assert offers.offered() is None


def test_through_the_exporter(outbox):
    """
    A slow request is mailed by what was offered, unless a server of one's own is named.
    """
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from otel_introspect import semconv
    from otel_introspect.exporters.mail import IntrospectEmailExporter

    exporter = IntrospectEmailExporter(to="ops@shop.example")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    offers.offer(DjangoCarrier)
    try:
        provider.get_tracer("t").start_span("GET /", attributes={semconv.SLOW: True}).end()
        assert exporter.force_flush(5000)
    finally:
        offers.withdraw(DjangoCarrier)
        exporter.shutdown()

    assert [each.to for each in outbox] == [["ops@shop.example"]]


def test_a_server_that_is_silent():
    """
    Where Django's settings have no timeout, ours is used.
    """
    import socket

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        override_settings(**by(SMTP, host="127.0.0.1", port=server.getsockname()[1])),
    ):
        began = time.monotonic()
        with pytest.raises(NotSent):
            DjangoCarrier().send(LETTER, 0.2)

    assert time.monotonic() - began < 5


def test_settings_that_can_t_be():
    """
    A backend that does not exist is a mail that was not sent.
    """
    with override_settings(**by("no.such.Backend")), pytest.raises(NotSent, match=r"ModuleNotFoundError|InvalidMailer"):
        DjangoCarrier().send(LETTER, 1.0)
