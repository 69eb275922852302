"""All that runs in this process under one configuration, and where adapters find it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from opentelemetry.trace import Tracer, TracerProvider, get_tracer

from otel_introspect.config import IntrospectConfig
from otel_introspect.engine.clock import Clock
from otel_introspect.engine.introspector import Introspector
from otel_introspect.engine.live_table import LiveTable
from otel_introspect.engine.watchdog import Watchdog
from otel_introspect.faults import fail_open
from otel_introspect.sinks.reporter import SpanReporter

_SECONDS: Final = 0.001


class Introspection:
    """The live table, what watches it and where that reports to.

    Making one starts nothing: the thread comes with the first entry span.

    Args:
        config: The settings.
        tracer_provider: For spans of our own; the global one if None is given.
        clock: What time it is.
    """

    def __init__(
        self, config: IntrospectConfig, *, tracer_provider: TracerProvider | None = None, clock: Clock | None = None
    ) -> None:
        self.config: Final = config
        self.tracer_provider: Final = tracer_provider
        self.table: Final = LiveTable()
        self.reporter: Final = SpanReporter(config.evidence, clock=clock)
        self.watchdog: Final = Watchdog(
            self.table,
            self.reporter,
            threshold_ms=config.watchdog.threshold or 1,
            max_snapshots=config.watchdog.max_snapshots,
            all_threads=config.watchdog.all_threads,
            clock=clock,
        )
        self.introspector: Final = Introspector(
            self.watchdog, max(config.watchdog.threshold, 1) * _SECONDS, self._forked
        )
        self.watching = config.watchdog.threshold > 0 and "thread" in config.watchdog.observers
        """Whether entry spans are put into the table at all."""

    def tracer(self) -> Tracer:
        """For spans of our own."""
        return get_tracer("otel_introspect", tracer_provider=self.tracer_provider)

    def stop(self) -> None:
        """Watch nothing more and give back the thread."""
        self.watching = False
        self.introspector.stop()
        self.watchdog.forget()

    def _forked(self) -> None:
        self.reporter.after_fork()
        self.table.keep_only(threading.get_ident())
        if self.table:
            self.introspector.wake()


_active: Introspection | None = None
_first_use: Callable[[], bool] | None = None


def active() -> Introspection | None:
    """The one that the instrumentor has set up; None if there is none."""
    if _first_use is not None:
        _used_first()
    return _active


def activate(introspection: Introspection | None) -> None:
    """Make *introspection* the one that adapters and ``snapshot()`` use."""
    global _active, _first_use
    _active, _first_use = introspection, None


def on_first_use(attach: Callable[[], bool]) -> None:
    """Have *attach* tried at each use from now on until it says that it has worked."""
    global _first_use  # noqa: PLW0603 - as above
    _first_use = attach


def _used_first() -> None:
    global _first_use  # noqa: PLW0603 - as above
    attach, _first_use = _first_use, None  # taken first, so that two threads do not both do it
    with fail_open("looking for the tracer provider"):
        if attach is not None and not attach():
            _first_use = attach
