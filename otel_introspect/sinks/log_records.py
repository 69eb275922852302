"""The sink that makes OpenTelemetry log records of evidence, joined to their span by its ids.

Wanted: evidence that leaves the process by itself, while its request still runs and after its span has ended; and
whatever the collector of logs does, be slow, dead or silent, no request notices, nor does the introspector.

Does not work: emitting where the evidence is written, as log processors of others run then, with the span locked, and
one of them may export while it is called. Nor on the courier that flushes spans: a dead collector of logs would keep
checkpoints waiting.

So: the record is taken down, and emitted and flushed by a courier of its own. Nothing is lost without a word: where
nobody listens, or too many wait, evidence goes on the span after all, if that is still open; what has no place at all
is counted.

What can still fail: what waits for a collector that does not answer is lost as the process ends.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from otel_introspect.engine import native
from otel_introspect.engine.native import allocate_lock
from otel_introspect.faults import count, fail_open, tell_once
from otel_introspect.sinks import Sink
from otel_introspect.sinks.courier import Courier, flush
from otel_introspect.sinks.log_emission import LogEvent, emit, has_listeners, is_enabled
from otel_introspect.sinks.log_wording import BODY_BYTES, body_of, severity_of

MAX_WAITING: Final = 128
"""How many records may wait to be emitted."""
SCOPE: Final = "otel_introspect"
"""The instrumentation scope of our records."""
_STOP_SECONDS: Final = 1.0

NOBODY_LISTENS: Final = (
    "OTEL_PYTHON_INTROSPECT_EVENTS asks for log records, but no OpenTelemetry logger provider with an exporter is set"
    " up, so evidence goes on the span for now. Under opentelemetry-instrument set OTEL_LOGS_EXPORTER=otlp"
    " (OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED is not needed); in code call"
    " opentelemetry._logs.set_logger_provider(). It is looked for again at each piece of evidence."
)


class LogRecordSink:
    """Emits evidence as log records, on a thread that may block.

    Args:
        provider: Returns the logger provider; asked each time, as it may be set late.
        courier: Of its own, which flushes that provider.
        instead: Where evidence goes that can't become a record; None if it goes there anyway.
    """

    extra_bytes: Final = BODY_BYTES
    """What a record has beside the event."""

    def __init__(self, provider: Callable[[], Any], courier: Courier, instead: Sink | None = None) -> None:
        self._provider = provider
        self._instead = instead
        self.courier: Final = courier
        self._reset()

    def _reset(self) -> None:
        self._waiting: deque[LogEvent] = deque()
        self._called = False
        """Whether the courier has been told that something waits."""
        self._is_used = False
        self._is_closed = False
        self._emitting = allocate_lock()

    def has_listeners(self) -> bool:
        """Whether anybody would take a record now; says once what to do if not."""
        if has_listeners(self._provider()):
            return True
        tell_once(logging.WARNING, NOBODY_LISTENS)
        return False

    def replaces_events(self) -> bool:
        """Whether evidence is in records only."""
        return self._instead is not None and self.has_listeners()

    def takes_ended(self, span: Any) -> bool:  # noqa: ANN401 - a span, or what an adapter has in its place
        """Whether evidence about *span*, which is not recording, still finds a place: if it was, and has ended."""
        if getattr(span, "end_time", None) is None:
            return False
        return bool(span.get_span_context().trace_flags.sampled) and self.has_listeners()

    def emit(self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> bool:
        """See ``Sink``; the span may have ended. Runs with it locked, so it only takes the record down."""
        if not self.has_listeners():
            return self._give_up(span, name, attributes, timestamp, "log record: nobody listens")
        if len(self._waiting) >= MAX_WAITING:
            return self._give_up(span, name, attributes, timestamp, "log record: too many wait")
        # What an adapter has in the place of a span, makes one now.
        make = getattr(span, "evidence_span", None)
        real: Any = span if make is None else make()
        # A bridge, of ours or of others, adds to a span that is recording; where we do so ourselves, it finds none.
        shown = real if self._instead is not None else NonRecordingSpan(real.get_span_context())
        event = LogEvent(
            name=name,
            context=set_span_in_context(shown, Context()),
            timestamp=timestamp,
            observed=time.time_ns(),
            severity=severity_of(name, attributes),
            body=body_of(str(getattr(real, "name", "request")), name, attributes),
            attributes=attributes,
        )
        self._is_used = True
        self._waiting.append(event)
        if not self._called:
            self._called = True  # first, as it may be done at once
            if not self.courier.run(self.deliver):
                self._called = False  # the next one tries again, and so does the end of the process
        return True

    def _give_up(
        self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int, reason: str
    ) -> bool:
        if self._instead is not None and span.is_recording():
            return self._instead.emit(span, name, attributes, timestamp)
        count("dropped", reason)
        return False

    def deliver(self) -> None:
        """Emit what waits, and have it flushed soon; on the courier's thread."""
        if self._waiting and not self._is_closed:
            # The courier does so when it has no more jobs. Asked later, it might have been stopped, and start again.
            self.courier.flush_soon()
        self._drain()

    def _drain(self) -> None:
        """Emit what waits. Blocks."""
        self._called = False  # first: what comes from here on calls again
        # So that whoever waits for all to be emitted waits for what another thread is at.
        with self._emitting:
            provider = self._provider()
            while True:
                try:
                    event = self._waiting.popleft()
                except IndexError:
                    return
                with fail_open("emitting a log record"):
                    self._emit(provider, event)

    @staticmethod
    def _emit(provider: Any, event: LogEvent) -> None:  # noqa: ANN401 - told by what it can do
        if not has_listeners(provider):
            count("dropped", "log record: nobody listens any more")
            return
        logger = provider.get_logger(SCOPE)
        if not is_enabled(logger, event):
            count("dropped", "log record: its logger is switched off")
            return
        emit(logger, event)

    def see_off(self, seconds: float = _STOP_SECONDS) -> None:
        """Have all that waits emitted before this returns, but wait so many seconds at most."""
        if not self._is_used:
            return
        done = allocate_lock()
        done.acquire()

        def run() -> None:
            try:
                with fail_open("emitting the last log records"):
                    self._drain()
            finally:
                done.release()

        with fail_open("emitting the last log records"):
            # Not the module's own start_thread(), which waits for that thread by way of a lock: this also runs while
            # the main thread is held in a handler of a POSIX signal.
            native._original("start_new_thread")(run, ())  # noqa: SLF001 - the one way to it that knows gevent
            done.acquire(timeout=max(seconds, 0))

    def flush(self, seconds: float) -> None:
        """Have all that was emitted exported, while the caller waits; may take longer than *seconds*, as of spans."""
        if self._is_used:
            flush(self._provider(), seconds)

    def close(self) -> None:
        """Emit what still waits, as far as that can be done at once, and end the courier."""
        self._is_closed = True
        if self._waiting:
            self.see_off()
        self.courier.stop()
        while self._waiting:
            self._waiting.popleft()
            count("dropped", "log record: the process has ended")

    def after_fork(self) -> None:
        """In a forked child: what waited is the parent's to send."""
        self._reset()
        self.courier.after_fork()
