"""Where the spans go besides the file."""

from __future__ import annotations

import pytest

from otel_introspect.demo import forwarding
from otel_introspect.demo.forwarding import Destination, Forwarder, destination


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch):
    monkeypatch.setattr(forwarding, "_somebody_listens", lambda: False)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318/"}, "http://host:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://host/x"}, "https://host/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/t"}, "http://b/t"),
    ],
)
def test_the_environment_says_where_to(environ, url):
    """
    The variables mean what they mean to every OTLP exporter.
    """
    assert destination(environ).url == url


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "file:///etc"}]
)
def test_nowhere_if_nothing_is_said_and_nobody_listens(environ):
    """
    Without an endpoint over HTTP there is no destination.
    """
    assert destination(environ) is None


def test_this_machine_if_somebody_listens_there(monkeypatch):
    """
    Somebody who listens on the usual port gets the spans without being named.
    """
    monkeypatch.setattr(forwarding, "_somebody_listens", lambda: True)

    assert destination({}).url == "http://localhost:4318/v1/traces"


def test_the_link_leads_to_jaegers_own_port():
    """
    The link is to the page of Jaeger on the same host, searching for the service.
    """
    assert Destination("http://host:4318/v1/traces", {}).jaeger("shop") == "http://host:16686/search?service=shop"


def test_requests_are_sent_on_as_they_came(make_collector):
    """
    The destination gets the same bytes, with the headers that the environment asks for.
    """
    collector = make_collector()
    forwarder = Forwarder(
        destination(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, x-other = c"}
        )
    )

    forwarder(b"first")
    forwarder(b"second")
    forwarder.finish(10)

    assert [(path, body) for path, _, body in collector.came] == [("/v1/traces", b"first"), ("/v1/traces", b"second")]
    headers = {key.lower(): value for key, value in collector.came[0][1].items()}
    assert (headers["x-key"], headers["x-other"]) == ("a b", "c")
    assert (forwarder.sent, forwarder.problem) == (2, "")


def test_a_destination_that_refuses_is_a_sentence_at_the_end(make_collector):
    """
    A destination that answers with an error, or not at all, is remembered and nothing else happens.
    """
    collector = make_collector(status=503)
    forwarder = Forwarder(Destination(collector.url, {}))
    nobody = Forwarder(Destination("http://127.0.0.1:1/v1/traces", {}))

    forwarder(b"x")
    nobody(b"x")
    forwarder.finish(10)
    nobody.finish(10)

    assert "503" in forwarder.problem
    assert nobody.problem
