"""The exporter prints, and never makes its caller pay for it."""

from __future__ import annotations

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_introspect import faults
from otel_introspect.exporters import console
from otel_introspect.exporters.console import IntrospectConsoleExporter

STACK = '  File "/srv/[/]a.py", line 1, in f\n    g()'


class Terminal(io.StringIO):
    """A stream that says a person looks at it."""

    encoding = "utf-8"

    def isatty(self):
        return True


def spans(*names, attributes=None):
    """Finished spans, the first the parent of the others, in the order in which they end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span(names[0], attributes=attributes) as span:
        span.add_event("otel_introspect.stack_snapshot", {"code.stacktrace": STACK})
        for name in names[1:]:
            tracer.start_span(name).end()
    provider.shutdown()
    return exporter.get_finished_spans()


@pytest.fixture(name="out")
def _out():
    return io.StringIO()


@pytest.fixture(name="exporter")
def _exporter(out):
    return IntrospectConsoleExporter(out)


def test_a_trace_is_printed_when_its_entry_span_has_ended(exporter, out):
    """
    Children alone print nothing; with the entry span the whole tree is there.
    """
    *children, entry = spans("GET /", "SELECT", "UPDATE")

    assert exporter.export(children) is SpanExportResult.SUCCESS
    assert out.getvalue() == ""
    assert exporter.export([entry]) is SpanExportResult.SUCCESS
    assert all(name in out.getvalue() for name in ("GET /", "SELECT", "UPDATE", '> File "/srv/[/]a.py"'))


@pytest.mark.parametrize("method", ["force_flush", "shutdown"])
def test_what_is_left_is_printed_at_the_end(exporter, out, method):
    """
    Spans whose entry span never came are printed on flush and on shutdown.
    """
    exporter.export(spans("GET /", "SELECT")[:1])

    getattr(exporter, method)()

    assert "SELECT" in out.getvalue()
    assert "entry span has not arrived" in out.getvalue()


def test_nothing_is_printed_after_shutdown(exporter, out):
    """
    After shutdown an export fails without a word, and a second shutdown does nothing.
    """
    exporter.shutdown()
    exporter.shutdown()

    assert exporter.export(spans("GET /")) is SpanExportResult.FAILURE
    assert out.getvalue() == ""


def test_standard_output_is_looked_up_when_it_is_written_to(capsys):
    """
    An exporter made before somebody replaced sys.stdout prints to the new one.
    """
    IntrospectConsoleExporter().export(spans("GET /late"))

    assert "GET /late" in capsys.readouterr().out


def test_without_standard_output_it_fails_quietly(monkeypatch):
    """
    A process without standard output loses the text and nothing else.
    """
    exporter = IntrospectConsoleExporter()
    monkeypatch.setattr(sys, "stdout", None)

    assert exporter.export(spans("GET /")) is SpanExportResult.FAILURE


def test_a_closed_stream_is_a_failure_not_an_exception(exporter, out):
    """
    A closed stream makes the export fail and is counted.
    """
    out.close()

    assert exporter.export(spans("GET /")) is SpanExportResult.FAILURE
    assert exporter.force_flush() is True
    assert faults.counts["dropped", "trace for the console: its stream is closed"] == 1


def test_a_broken_pipe_is_a_failure_not_an_exception():
    """
    A reader that went away makes the export fail.
    """
    reader, writer = os.pipe()
    os.close(reader)
    out = os.fdopen(writer, "w", encoding="utf-8")
    try:
        assert IntrospectConsoleExporter(out).export(spans("GET /")) is SpanExportResult.FAILURE
    finally:
        with pytest.raises(BrokenPipeError):
            out.close()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "utf-16", "shift_jis"])
def test_every_encoding_gets_something_readable(encoding):
    """
    What the stream's encoding can't show is escaped; the tree itself is drawn with what it can.
    """
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)

    result = IntrospectConsoleExporter(out).export(spans("GET /ünï→\N{PILE OF POO}", "SELECT"))

    assert result is SpanExportResult.SUCCESS
    text = raw.getvalue().decode(encoding)
    assert "GET /" in text
    assert "\\u251c" not in text


@given(st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x07\r\n\x9b\u202e\ud800[]/")), max_size=60))
def test_any_text_goes_to_a_coloured_terminal_unharmed(text):
    """
    On a terminal the only escape sequences are rich's own colours, whatever the span holds.
    """
    out = Terminal()

    result = IntrospectConsoleExporter(out).export(spans("GET", attributes={"http.route": text, "db.statement": text}))

    assert result is SpanExportResult.SUCCESS
    import re

    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert all(line.isprintable() for line in without_colours.split("\n"))


def test_colours_only_on_a_terminal(out, monkeypatch):
    """
    A terminal gets colours, a file does not, and a terminal with NO_COLOR does not either.
    """
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, colourless = Terminal(), Terminal()

    IntrospectConsoleExporter(out).export(spans("GET /"))
    IntrospectConsoleExporter(terminal).export(spans("GET /"))
    monkeypatch.setenv("NO_COLOR", "1")
    IntrospectConsoleExporter(colourless).export(spans("GET /"))

    assert "\x1b[" in terminal.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "\x1b" not in colourless.getvalue()


def test_without_rich_a_terminal_gets_plain_text(monkeypatch):
    """
    Where rich is not installed the tree is printed without colours.
    """
    monkeypatch.setitem(sys.modules, "rich.console", None)
    terminal = Terminal()

    assert IntrospectConsoleExporter(terminal).export(spans("GET /")) is SpanExportResult.SUCCESS
    assert "GET /" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_a_fault_while_rendering_is_ours_alone(exporter, out, monkeypatch, caplog):
    """
    A trace that can't be rendered is counted and logged once; the caller never hears of it.
    """

    def broken(*_args):
        raise ZeroDivisionError

    monkeypatch.setattr(console, "render", broken)

    exporter.export(spans("GET /"))
    exporter.export(spans("GET /"))

    assert faults.counts["failed", "rendering a trace"] == 2
    assert [record.message.partition(" while ")[0] for record in caplog.records] == ["otel_introspect failed"]


def test_a_fault_while_reading_spans_is_ours_alone(exporter, out):
    """
    Something that is no span makes the export fail, no more.
    """
    assert exporter.export([object()]) is SpanExportResult.FAILURE


def test_a_forked_child_does_not_print_its_parents_spans(exporter, out):
    """
    In a forked child nothing waits, and the lock is free, whoever held it in the parent.
    """
    exporter.export(spans("GET /", "SELECT")[:1])
    with exporter._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if exporter.force_flush() and out.getvalue() == "" else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert exporter.force_flush()
    assert "SELECT" in out.getvalue()


def test_the_launcher_finds_it_by_name():
    """
    The name introspect_console leads to this class.
    """
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="opentelemetry_traces_exporter", name="introspect_console")

    assert entry.load() is IntrospectConsoleExporter
