"""What the doctor says about evidence that is to go into log records."""

import pytest

from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.cli.diagnosis.records import records
from otel_introspect.cli.diagnosis.surroundings import DISTROS, Plugin

EVENTS = "OTEL_PYTHON_INTROSPECT_EVENTS"
BRIDGE = "OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({EVENTS: "span"}, []),
        ({EVENTS: "span,log"}, [Level.OK]),
        ({EVENTS: "log"}, [Level.OK, Level.NOTE]),
        ({EVENTS: "log", BRIDGE: "true"}, [Level.OK]),
        ({BRIDGE: "true"}, [Level.NOTE]),
        ({EVENTS: "log", "OTEL_LOGS_EXPORTER": "none"}, [Level.PROBLEM]),
        ({EVENTS: "span,log", "OTEL_LOGS_EXPORTER": "none"}, [Level.PROBLEM]),
        ({EVENTS: "span,log", "OTEL_LOGS_EXPORTER": "zipkin"}, [Level.PROBLEM]),
        ({EVENTS: "span,log", "OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "x"}, [Level.PROBLEM]),
        ({EVENTS: "span,log", "OTEL_CONFIG_FILE": "otel.yaml"}, [Level.NOTE]),
    ],
)
def test_what_is_said(healthy, environ, expected):
    """
    Records that nobody would take are a problem; that Jaeger shows none is worth knowing.
    """
    assert [each.level for each in records(healthy(environ))] == expected


def test_somebody_else_s_distro_decides(healthy):
    """
    Where nothing says which exporter there is, that can't be seen.
    """
    here = healthy({EVENTS: "span,log"}, plugins={DISTROS: (Plugin("x", "x:X"),)})

    assert [each.level for each in records(here)] == [Level.NOTE]


def test_who_shows_no_records(healthy):
    """
    An exporter of ours that reads spans only is named, as its mails would come without a stack.
    """
    here = healthy({EVENTS: "log", "OTEL_TRACES_EXPORTER": "otlp_proto_http,introspect_email"})

    assert "which Jaeger and introspect_email do not show" in list(records(here))[-1].message
