"""Slow requests as records of the standard library's logging."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_introspect import faults
from otel_introspect.exporters import reporting
from otel_introspect.exporters.report_log import LOGGER_NAME, IntrospectLoggingExporter

pytest.importorskip("aiosmtpd")
pytest.importorskip("trustme")

from mail_server import slow_request


@pytest.fixture(name="exporter")
def _exporter():
    exporter = IntrospectLoggingExporter(link="http://j/{trace_id}")

    yield exporter

    exporter.shutdown()


@pytest.fixture(name="provider")
def _provider(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture(name="tracer")
def _tracer(provider):
    return provider.get_tracer(__name__)


def ours(caplog):
    return [record for record in caplog.records if record.name == LOGGER_NAME]


def test_one_record_for_a_slow_request(tracer, exporter, caplog):
    """
    A warning with the whole report; its data are the record's attributes; the request's thread logs nothing.
    """
    trace_id = slow_request(tracer)
    exporter.force_flush(5000)
    (record,) = ours(caplog)

    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("GET invoices/<int:year>/ took 2.000 s\n")
    assert 'File "/srv/shop/totals.py", line 7, in sum_up' in record.getMessage()
    assert (record.trace_id, record.function, record.elapsed_ms) == (trace_id, "sum_up", 2000)
    assert record.link == f"http://j/{trace_id}"
    assert record.thread != threading.get_ident()


def test_attributes_that_the_application_has_taken(tracer, exporter, caplog):
    """
    A record factory that sets ``trace_id`` costs the data, not the report.
    """
    before = logging.getLogRecordFactory()

    def factory(*given, **more):
        record = before(*given, **more)
        record.trace_id = "theirs"
        return record

    logging.setLogRecordFactory(factory)
    try:
        slow_request(tracer)
        exporter.force_flush(5000)
    finally:
        logging.setLogRecordFactory(before)
    (record,) = ours(caplog)

    assert record.trace_id == "theirs"
    assert "sum_up" in record.getMessage()


def test_a_level_that_is_higher(tracer, exporter, caplog):
    """
    Who has raised the logger's level gets nothing, and nothing is made for it.
    """
    with caplog.at_level(logging.ERROR, LOGGER_NAME):
        slow_request(tracer)
        exporter.force_flush(5000)

    assert ours(caplog) == []


def test_a_handler_that_makes_spans(tracer, exporter, provider, caplog):
    """
    A handler that itself ends a slow span does not begin an endless chain: it is told once more, and that is all.
    """
    told = []

    class Handler(logging.Handler):
        def emit(self, record):
            told.append(record)
            if len(told) < 2:
                slow_request(tracer)

    handler = Handler()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        slow_request(tracer)
        exporter.force_flush(5000)
        exporter.force_flush(5000)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)

    assert len(told) == 2


def test_a_handler_is_not_instrumented(tracer, exporter):
    """
    A handler that sends its records somewhere makes no spans with that: it is no work of the application's.
    """
    suppressed = []

    class Handler(logging.Handler):
        def emit(self, _record):
            suppressed.append(not is_instrumentation_enabled())

    handler = Handler()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        slow_request(tracer)
        exporter.force_flush(5000)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)

    assert suppressed == [True]


def test_records_that_become_opentelemetry_s(tracer, exporter):
    """
    Where logging is bridged to OpenTelemetry, the record belongs to the request's trace, and comes once.
    """
    logs = pytest.importorskip("opentelemetry.sdk._logs")
    export = pytest.importorskip("opentelemetry.sdk._logs.export")
    memory = getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter
    finished = memory()
    logger_provider = logs.LoggerProvider(shutdown_on_exit=False)
    logger_provider.add_log_record_processor(export.SimpleLogRecordProcessor(finished))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its handler moves to another package
        handler = logs.LoggingHandler(logger_provider=logger_provider)
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        trace_id = slow_request(tracer)
        exporter.force_flush(5000)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)
        logger_provider.shutdown()
    (data,) = finished.get_finished_logs()

    assert f"{data.log_record.trace_id:032x}" == trace_id
    assert data.log_record.attributes["function"] == "sum_up"


def test_a_handler_that_hangs(tracer, exporter, monkeypatch, caplog):
    """
    No request waits for a handler; what there is no room for is counted, and told with the next.
    """
    monkeypatch.setattr(reporting, "MAX_WAITING", 2)
    go_on = threading.Event()
    entered = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            entered.set()
            go_on.wait(10)

    handler = Handler()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        slow_request(tracer)
        assert entered.wait(10)
        for _ in range(10):
            slow_request(tracer)
        go_on.set()
        exporter.force_flush(5000)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)
    first, second, third = ours(caplog)

    assert "were not reported" not in first.getMessage() + third.getMessage()
    assert second.getMessage().startswith("8 more slow requests before this one were not reported")
    assert faults.counts["dropped", "report for otel-introspect-logging: it is behind"] == 8


def test_a_handler_that_raises(tracer, exporter):
    """
    Its exception stays on our thread, and the next request is told.
    """
    told = []

    class Handler(logging.Handler):
        def emit(self, record):
            told.append(record)
            raise ValueError("theirs")

    handler = Handler()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        for _ in range(2):
            slow_request(tracer)
            exporter.force_flush(5000)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)

    assert len(told) == 2
