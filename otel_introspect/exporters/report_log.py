"""The traces exporter ``introspect_logging``: one record of the standard library's logging for each slow request."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from otel_introspect.config import EmailConfig
from otel_introspect.exporters.report import fields_of, text_of
from otel_introspect.exporters.reporting import QueuedReports, missed_note
from otel_introspect.exporters.span_view import SpanView

LOGGER_NAME: Final = "otel_introspect.slow_requests"
"""Where the records come from: its level, handlers and propagation are the application's to set."""


class IntrospectLoggingExporter(QueuedReports):
    """Logs a warning with the whole report, and its data as ``extra``.

    Records carry the request's trace, also for who turns them into OpenTelemetry's.

    Args:
        link: Template of the link to a trace; what ``OTEL_PYTHON_INTROSPECT_EMAIL_LINK`` says if there is none.
    """

    def __init__(self, *, link: str | None = None) -> None:
        super().__init__("otel-introspect-logging")
        self._link = EmailConfig.from_env(overrides={"link": link}).link
        self._logger = logging.getLogger(LOGGER_NAME)

    def _tell(self, span: SpanView, missed: int) -> None:
        if not self._logger.isEnabledFor(logging.WARNING):
            return
        said = missed_note(missed) + text_of(span, self._link)
        token = context.attach(_as_current(span))
        try:
            try:
                self._logger.warning("%s", said, extra=fields_of(span, self._link))
            except KeyError:  # the application's records have an attribute of that name
                self._logger.warning("%s", said)
        finally:
            context.detach(token)


def _as_current(span: SpanView) -> context.Context:
    current = context.get_current()  # in which instrumentation is suppressed: a handler that sends makes no spans
    with suppress(ValueError):
        ids = SpanContext(int(span.trace_id, 16), int(span.span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
        return trace.set_span_in_context(NonRecordingSpan(ids), current)
    return current
