"""All that runs in this process under one configuration, and where adapters find it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Tracer, TracerProvider, get_tracer

from otel_introspect.config import IntrospectConfig
from otel_introspect.engine.clock import Clock
from otel_introspect.engine.introspector import Introspector
from otel_introspect.engine.live_table import LiveTable
from otel_introspect.engine.ownership import is_library, is_surroundings
from otel_introspect.faults import fail_open

if TYPE_CHECKING:
    from otel_introspect.engine.watchdog import Watchdog
    from otel_introspect.sinks.reporter import SpanReporter

_SECONDS: Final = 0.001


class Introspection:
    """The live table, what watches it and where that reports to.

    Making one starts nothing, and loads nothing that only a slow span needs: both come with the first entry span, on
    the introspector's thread, so that a process which never has one, a short command say, pays for neither.

    Args:
        config: The settings.
        tracer_provider: For spans of our own; the global one if None is given.
        clock: What time it is.
    """

    def __init__(
        self, config: IntrospectConfig, *, tracer_provider: TracerProvider | None = None, clock: Clock | None = None
    ) -> None:
        self.config: Final = config
        self.tracer_provider = tracer_provider
        self.table: Final = LiveTable()
        self.introspector: Final = Introspector(self._look, max(config.watchdog.threshold, 1) * _SECONDS, self._forked)
        self.watching = config.watchdog.threshold > 0 and "thread" in config.watchdog.observers
        """Whether entry spans are put into the table at all."""
        self._clock = clock
        self._assembling = threading.RLock()
        self._reporter: SpanReporter | None = None
        self._watchdog: Watchdog | None = None

    @property
    def reporter(self) -> SpanReporter:
        """Where snapshots go."""
        if self._reporter is None:
            with self._assembling:
                if self._reporter is None:
                    from otel_introspect.sinks.reporter import SpanReporter

                    self._reporter = SpanReporter(self.config.evidence, clock=self._clock)
        return self._reporter

    @property
    def watchdog(self) -> Watchdog:
        """What looks at the table."""
        if self._watchdog is None:
            with self._assembling:
                if self._watchdog is None:
                    from otel_introspect.engine.watchdog import Watchdog

                    self._watchdog = Watchdog(
                        self.table,
                        self.reporter,
                        threshold_ms=max(self.config.watchdog.threshold, 1),
                        max_snapshots=self.config.watchdog.max_snapshots,
                        all_threads=self.config.watchdog.all_threads,
                        clock=self._clock,
                    )
        return self._watchdog

    def prepare(self) -> None:
        """Load now what a slow span will need: for servers, before their first request.

        Loading reads files, and whoever reads a file lets go of the GIL. A request that keeps it for long stretches, in
        a regular expression say, would be over before all was loaded.
        """
        with fail_open("loading"):
            is_surroundings("")
            is_library("")
            _ = self.watchdog

    def tracer(self) -> Tracer:
        """For spans of our own."""
        return get_tracer("otel_introspect", tracer_provider=self.tracer_provider)

    def _look(self) -> int | None:
        return self.watchdog.look()

    def stop(self) -> None:
        """Watch nothing more and give back the thread."""
        self.watching = False
        self.introspector.stop()
        self.table.clear()

    def _forked(self) -> None:
        # A lock may be held by a thread that is not there any more.
        self._assembling = threading.RLock()
        if self._reporter is not None:
            self._reporter.after_fork()
        self.table.keep_only(threading.get_ident())
        if self.table:
            self.introspector.wake()


_active: Introspection | None = None
_fallback: Introspection | None = None
_first_use: Callable[[], bool] | None = None


def active() -> Introspection | None:
    """The one that the instrumentor has set up; None if there is none."""
    if _first_use is not None:
        _used_first()
    return _active


def active_or_own() -> Introspection:
    """The one that the instrumentor has set up; where none has been run, one that watches nothing and only writes."""
    global _fallback  # noqa: PLW0603 - made once, at the first use
    introspection = active()
    if introspection is not None:
        return introspection
    if _fallback is None:
        _fallback = Introspection(IntrospectConfig.from_env())
    return _fallback


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
