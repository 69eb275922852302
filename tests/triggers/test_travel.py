"""The decision in the baggage, as it leaves one service and reaches the next."""

from __future__ import annotations

from opentelemetry import context as otel_context
from opentelemetry.baggage import get_all, set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from otel_introspect.triggers.tokens import sign_travel
from otel_introspect.triggers.travel import BAGGAGE_KEY, received, send

TOKEN = sign_travel("a key that is long enough", 0x0AF7651916CD43DD8448EB211C80319C, ttl=300)


def test_what_was_sent_is_received_by_the_next_service():
    """
    The token passes through a W3C baggage header unchanged, beside what the application has there.
    """
    carrier = {}
    W3CBaggagePropagator().inject(carrier, send(TOKEN, set_baggage("user", "1", Context())))
    arrived = W3CBaggagePropagator().extract(carrier, Context())

    assert f"{BAGGAGE_KEY}={TOKEN}" in carrier["baggage"]
    assert received(arrived) == TOKEN
    assert dict(get_all(arrived)) == {"user": "1", BAGGAGE_KEY: TOKEN}


def test_nothing_sent_nothing_received():
    """
    Without our entry there is None, whatever else is in the baggage.
    """
    assert received(Context()) is None
    assert received(set_baggage("user", "1", Context())) is None
    assert received() is None


def test_the_current_context_is_the_default():
    """
    Without a context the current one is read, and is what the new one begins with.
    """
    token = otel_context.attach(send(TOKEN))
    try:
        assert received() == TOKEN
    finally:
        otel_context.detach(token)
    assert received() is None


def test_the_context_that_was_given_is_not_changed():
    """
    Sending makes a context of its own.
    """
    before = Context()
    send(TOKEN, before)

    assert received(before) is None


def test_what_is_no_text_is_not_received():
    """
    An entry that the application has put there itself, and is no token by its type, is none.
    """
    for value in ("", None, 1, b"v1", ["v1"]):
        assert received(set_baggage(BAGGAGE_KEY, value, Context())) is None
