"""Emitting a log record through whatever version of the Logs API is installed, and whether anybody would take it.

What is wanted: one way to emit an event, with OpenTelemetry 1.33 as with the newest.

What does not work: one call for all. Until 1.38 a logger takes a record that the caller has made, until 1.36 one of the
SDK's own class, and until 1.34 that knows neither a context nor an event's name. What is emitted without a provider, or
with one that has no processors, is gone without a word.

So: the signatures decide, not version numbers. Where a record has no field for the event's name, the attribute
``event.name`` has it. Whether somebody listens is asked before, and takes no lock.

Nor does a provider's ``force_flush`` work, since SDK 1.33: it exports until nothing waits any more. Where logging is
bridged to OpenTelemetry, an exporter that logs while it exports, as ``urllib3`` does at debug level, gives it something
to export each time, and it never ends. So as many batches are exported as wait when it begins.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final, NamedTuple

from opentelemetry._logs import LogRecord, NoOpLoggerProvider, SeverityNumber
from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,  # what the SDK itself exports under
    Context,
    attach,
    detach,
    set_value,
)
from opentelemetry.trace import get_current_span
from opentelemetry.util.types import AttributeValue

EVENT_NAME: Final = "event.name"
"""The attribute that has an event's name where a record has no field for it."""

# As each version of the SDK, and each part of it, calls it.
_SHUT_DOWN: Final = ("_shutdown", "done", "_stopped")


class LogEvent(NamedTuple):
    """What becomes a log record.

    Args:
        name: The event's name.
        context: Its current span is what the record is joined to.
        timestamp: When it was, in nanoseconds since the epoch.
        observed: When it was made known, likewise.
        severity: How much it matters.
        body: One line for a person.
        attributes: As of the span event.
    """

    name: str
    context: Context
    timestamp: int
    observed: int
    severity: SeverityNumber
    body: str
    attributes: dict[str, AttributeValue]


def has_listeners(provider: Any) -> bool:  # noqa: ANN401 - told by what it has
    """Whether anybody would take a record that is emitted with *provider*, as far as that can be told."""
    if isinstance(provider, NoOpLoggerProvider) or type(provider).__name__ == "ProxyLoggerProvider":
        return False  # the API's own
    if getattr(provider, "_disabled", False):  # OTEL_SDK_DISABLED
        return False
    multiple = getattr(provider, "_multi_log_record_processor", None)
    processors = getattr(multiple, "_log_record_processors", None)
    if processors is None:
        return True  # not the SDK's
    return any(not getattr(each, "only_bridges", False) and not _is_shut_down(each) for each in processors)


def _is_shut_down(processor: Any) -> bool:  # noqa: ANN401 - as above
    parts = (processor, getattr(processor, "_batch_processor", None))
    return any(getattr(each, name, False) is True for each in parts for name in _SHUT_DOWN)


def flusher_of(provider: Any) -> Callable[[int], object] | None:  # noqa: ANN401 - as above
    """What has *provider* export what waits now, within so many milliseconds if it can; None if it can't be flushed."""
    multiple = getattr(provider, "_multi_log_record_processor", None)
    processors = getattr(multiple, "_log_record_processors", None)
    if processors is None:  # of spans, or not the SDK's
        force_flush: Callable[[int], object] | None = getattr(provider, "force_flush", None)
        return force_flush
    return partial(_flush_each, tuple(processors))


def _flush_each(processors: Sequence[Any], milliseconds: int) -> None:
    end = time.monotonic() + milliseconds / 1000
    for each in processors:
        left = int((end - time.monotonic()) * 1000)
        if left <= 0:
            return  # as the SDK does
        _flush_one(each, left)


def _flush_one(processor: Any, milliseconds: int) -> None:  # noqa: ANN401 - as above
    batches = getattr(processor, "_batch_processor", processor)
    export = getattr(batches, "_export", None)
    waiting, size = getattr(batches, "_queue", None), getattr(batches, "_max_export_batch_size", None)
    one_batch = _one_batch(type(batches))
    if export is None or waiting is None or not size or one_batch is None:
        processor.force_flush(milliseconds)
    elif not _is_shut_down(processor):
        for _ in range(-(-len(waiting) // size)):
            export(one_batch)


def _one_batch(kind: type) -> Any:  # noqa: ANN401 - as above
    """What a batch processor of that class is told to export one batch with, under either of its names."""
    module = sys.modules.get(kind.__module__)
    strategies = (getattr(module, name, None) for name in ("BatchExportStrategy", "BatchLogExportStrategy"))
    found = (getattr(each, "EXPORT_AT_LEAST_ONE_BATCH", None) for each in strategies)
    return next((each for each in found if each is not None), None)


def is_enabled(logger: Any, event: LogEvent) -> bool:  # noqa: ANN401 - as above
    """Whether *logger* wants it; older ones can't say so, and want everything."""
    ask = getattr(logger, "enabled", None)
    return ask is None or bool(ask(context=event.context, severity_number=event.severity, event_name=event.name))


def emit(logger: Any, event: LogEvent) -> None:  # noqa: ANN401 - as above
    """Emit *event* with *logger*; may block, as processors of others run."""
    given: dict[str, Any] = {
        "timestamp": event.timestamp,
        "observed_timestamp": event.observed,
        "context": event.context,
        "severity_number": event.severity,
        "severity_text": event.severity.name,
        "body": event.body,
        "attributes": dict(event.attributes),
        "event_name": event.name,
    }
    # Current as well: older records know no context, and what exports while it is called is not to be traced.
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True, context=event.context))
    try:
        if given.keys() <= _parameters(type(logger).emit):
            logger.emit(**given)
        else:
            logger.emit(_record(logger, given))
    finally:
        detach(token)


def _record(logger: Any, given: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    """A record of the class that *logger* takes."""
    kind: Any = getattr(sys.modules.get(type(logger).__module__), "LogRecord", LogRecord)
    known = _parameters(kind.__init__)
    if "event_name" not in known:
        given["attributes"][EVENT_NAME] = given["event_name"]
    if "context" not in known:
        span_context = get_current_span(given["context"]).get_span_context()
        given["trace_id"], given["span_id"] = span_context.trace_id, span_context.span_id
        given["trace_flags"] = span_context.trace_flags
    given["resource"] = getattr(logger, "resource", None)
    return kind(**{name: value for name, value in given.items() if name in known})


@cache
def _parameters(function: Any) -> frozenset[str]:  # noqa: ANN401 - any callable
    return frozenset(inspect.signature(function).parameters)
