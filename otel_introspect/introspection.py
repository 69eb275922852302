"""All that runs in this process under one configuration, and where adapters find it."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from sys import modules
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.trace import Tracer, TracerProvider, get_tracer, get_tracer_provider

from otel_introspect.config import TAIL_AGE_MS, IntrospectConfig, ProfilerConfig
from otel_introspect.engine import handover
from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.dead_man import DeadManSwitch
from otel_introspect.engine.faulthandler_timer import is_supported
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.introspector import Introspector
from otel_introspect.engine.live_table import LiveTable, Watch
from otel_introspect.engine.native import get_ident, is_main_thread
from otel_introspect.engine.ownership import is_library, is_surroundings
from otel_introspect.engine.peek import Peek, Sight
from otel_introspect.engine.places import GREENLETS
from otel_introspect.engine.recorder_claims import abandoned
from otel_introspect.engine.recorder_directory import DUMP_SUFFIX, DirectoryRefused, RecorderDirectory
from otel_introspect.engine.stacks import Capture
from otel_introspect.engine.vital_signs import PERIOD, VitalSigns
from otel_introspect.faults import fail_open, tell_once

if TYPE_CHECKING:
    from otel_introspect.engine.faulthandler_observer import FaulthandlerObserver
    from otel_introspect.engine.places import TakeLocals
    from otel_introspect.engine.watchdog import Watchdog
    from otel_introspect.profiling.profiler import Profiler
    from otel_introspect.sinks import Sink
    from otel_introspect.sinks.budget import ProcessBudget
    from otel_introspect.sinks.checkpoints import Checkpoints
    from otel_introspect.sinks.courier import Courier
    from otel_introspect.sinks.log_records import LogRecordSink
    from otel_introspect.sinks.reporter import SpanReporter
    from otel_introspect.triggers.requests import RequestTrigger

_SECONDS: Final = 0.001
_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_PERIOD_MS: Final = PERIOD // 1_000_000
# Which request it is. The path without its query, as that may hold what is nobody's business.
_DESCRIBING: Final = ("http.request.method", "http.method", "http.route", "url.path")


# How often a process that is at work looks for what others have left, in nanoseconds.
_RECOVERY_PERIOD: Final = 10_000_000_000
# A process that has just started may be about to fork its workers, or to be over: they, or others, are to recover then.
START_SETTLES: Final = 3.0
_FORK_SETTLES: Final = 1.0


class Recovering(Protocol):
    """Sends off what dead processes have left."""

    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        ...

    def run(self) -> object:
        """Do it, on a thread that may block."""
        ...


class Introspection:
    """The live table, what watches it and where that reports to.

    Making one starts nothing, and loads nothing that only a slow span needs: both come with the first entry span, on
    the introspector's thread, so that a process which never has one, a short command say, pays for neither.

    Args:
        config: The settings.
        tracer_provider: For spans of our own; the global one if None is given.
        logger_provider: For log records; likewise.
        clock: What time it is.
    """

    def __init__(
        self,
        config: IntrospectConfig,
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: Any = None,  # noqa: ANN401 - told by what it can do
        clock: Clock | None = None,
    ) -> None:
        self.config: Final = config
        self.tracer_provider = tracer_provider
        self.given_logger_provider = logger_provider
        self.table: Final = LiveTable()
        self.introspector: Final = Introspector(self._look, _idle_seconds(config), self._forked)
        self.finds_slow: Final = config.watchdog.threshold > 0 and "thread" in config.watchdog.observers
        """Whether it is looked for slow spans."""
        self.profiles: Final = bool(config.profiler.triggers)
        """Whether profiles are taken at all, other than in code."""
        self.begins_profiles: Final = begins_profiles(config.profiler)
        """Whether a profile may begin with an entry span, or soon after it."""
        self.recorder_directory: Final = RecorderDirectory(config.recorder.directory)
        """Where flight recorders' files are, if there are any."""
        self.recorder: Final = self._flight_recorder()
        """Where open spans are written down for when this process is gone; None if they are not."""
        self.watching = (
            self.finds_slow or self.begins_profiles or "tail" in config.profiler.triggers or self.recorder is not None
        )
        """Whether entry spans are put into the table at all."""
        self.inherited: frozenset[Hashable] = frozenset()
        """The spans, by their keys, that a forked process has from its parent, which will end them."""
        self._clock = clock
        self._clock_or_system: Final[Clock] = SystemClock() if clock is None else clock
        self.peek: Final = self._make_peek()
        """The observer ``signal``; None if there is to be none."""
        self.dead_man: Final = self._make_dead_man()
        """What has faulthandler look when nobody else can; None if it is not to."""
        self._faulthandler_observer: FaulthandlerObserver | None = None
        self._assembling = threading.RLock()
        self._reporter: SpanReporter | None = None
        self._checkpoints: Checkpoints | None = None
        self._courier: Courier | None = None
        self._records: LogRecordSink | None = None
        self._vital_signs = (
            None if self.recorder is None else VitalSigns(self.table, self.recorder, _described, self._clock_or_system)
        )
        self.make_recovery: Callable[[], Recovering] | None = None
        """Makes what recovers dead processes' requests, which needs the SDK; None if nothing is to."""
        self.recovers = True
        """Whether this process does so itself. One that forks workers does not: they would share its connections."""
        self._recovery: Recovering | None = None
        self._next_recovery = 0
        self._recovery_waits = False
        self._watchdog: Watchdog | None = None
        self._profiler: Profiler | None = None
        self._request_trigger: RequestTrigger | None = None

    @property
    def reporter(self) -> SpanReporter:
        """Where snapshots go."""
        if self._reporter is None:
            with self._assembling:
                if self._reporter is None:
                    from otel_introspect.sinks.budget import ProcessBudget
                    from otel_introspect.sinks.recorded import FlightRecorderSink
                    from otel_introspect.sinks.reporter import SpanReporter

                    budget = ProcessBudget(SystemClock() if self._clock is None else self._clock)
                    copies: list[Sink] = [] if self.recorder is None else [FlightRecorderSink(self.recorder)]
                    if self.config.watchdog.checkpoint != "none":
                        self._checkpoints = self._make_checkpoints(budget)
                        copies.append(self._checkpoints)
                    self._reporter = SpanReporter(
                        self.config.evidence, budget=budget, sinks=self._sinks(), copies=copies
                    )
        return self._reporter

    def _sinks(self) -> list[Sink]:
        from otel_introspect.sinks.span_events import SpanEventSink

        spans: list[Sink] = [SpanEventSink()]
        return spans if self.records is None else [*([] if self._in_records_only else spans), self.records]

    @property
    def _in_records_only(self) -> bool:
        # Records come from another thread, and after the span's end perhaps, when a bridge adds nothing to it any more:
        # so where there is to be one, ours are put on the span by ourselves.
        evidence = self.config.evidence
        return evidence.events == ("log",) and not evidence.events_bridge

    @property
    def records(self) -> LogRecordSink | None:
        """What makes log records of evidence; None if there are to be none."""
        if self._records is None and "log" in self.config.evidence.events:
            with self._assembling:
                if self._records is None:
                    from otel_introspect.sinks.courier import Courier
                    from otel_introspect.sinks.log_records import LogRecordSink
                    from otel_introspect.sinks.span_events import SpanEventSink

                    instead = SpanEventSink() if self._in_records_only else None
                    self._records = LogRecordSink(self.logger_provider, Courier(self.logger_provider), instead)
        return self._records

    def logger_provider(self) -> Any:  # noqa: ANN401 - the API's or the SDK's, or whatever was given
        """What log records go to."""
        from opentelemetry._logs import get_logger_provider

        return self.given_logger_provider or get_logger_provider()

    def see_off_records(self, seconds: float) -> None:
        """Have the log records that wait emitted, as the process is about to end."""
        if self._records is not None:
            self._records.see_off(seconds)

    def flush_records(self, seconds: float) -> None:
        """Have the log records that were emitted exported, while the caller waits."""
        if self._records is not None:
            self._records.flush(seconds)

    def _make_peek(self) -> Peek | None:
        watchdog = self.config.watchdog
        if not self.finds_slow or "signal" not in watchdog.observers:
            return None
        peek = Peek(
            self.table,
            self._report_sight,
            threshold_ms=watchdog.threshold,
            max_snapshots=watchdog.max_snapshots,
            clock=self._clock,
        )
        if self.recorder is not None:
            peek.peeked = partial(_write_down_peeked, self.recorder)
        return peek

    def _make_dead_man(self) -> DeadManSwitch | None:
        if not self.finds_slow or "faulthandler" not in self.config.watchdog.observers:
            return None
        if not is_supported():
            tell_once(logging.DEBUG, "The observer faulthandler is left out: it is not to be had on this build.")
            return None
        return DeadManSwitch(
            threshold=self.config.watchdog.threshold * _MILLISECOND,
            idle=int(_idle_seconds(self.config) * _SECOND),
            path=self._dump_path,
            clock=self._clock,
        )

    def _dump_path(self) -> str | None:
        """Where whoever recovers the flight recorder's file finds what faulthandler has written; None without one."""
        recorded = None if self.recorder is None else self.recorder.path
        return None if recorded is None else str(recorded.with_suffix(DUMP_SUFFIX))

    def _read_dump(self, dead_man: DeadManSwitch) -> None:
        if self._faulthandler_observer is None:
            from otel_introspect.engine.faulthandler_observer import FaulthandlerObserver

            self._faulthandler_observer = FaulthandlerObserver(dead_man, self.watchdog, self._clock)
        self._faulthandler_observer.before_look()

    def _put_off(self, dead_man: DeadManSwitch, wait: int | None) -> int | None:
        if wait is None and self.introspector.parked:
            dead_man.disarm()
            if self.introspector.parked:
                return None
            # A request has begun meanwhile, and counts on the switch that we have turned off.
        return dead_man.go_on(wait)

    def _report_sight(self, span: Any, watch: Watch, sight: Sight) -> None:  # noqa: ANN401 - a span, or what an adapter has in its place
        self.watchdog.report_sight(span, watch, sight)

    def _make_checkpoints(self, budget: ProcessBudget) -> Checkpoints:
        from otel_introspect.sinks.checkpoints import Checkpoints

        return Checkpoints(
            every=self.config.watchdog.checkpoint == "all",
            tracer=self.tracer,
            courier=self.courier,
            budget=budget,
            max_bytes=self.config.evidence.max_attribute_bytes,
            without_event=None if self.records is None else self.records.replaces_events,
        )

    @property
    def courier(self) -> Courier:
        """What flushes the tracer provider, and does what may block."""
        if self._courier is None:
            with self._assembling:
                if self._courier is None:
                    from otel_introspect.sinks.courier import Courier

                    self._courier = Courier(lambda: self.tracer_provider or get_tracer_provider())
        return self._courier

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
                        turned_slow=self.profiler.turned_slow if self.profiles else None,
                        handed=None if self.peek is None else self.peek.handed,
                        take_locals=self._take_locals(),
                        clock=self._clock,
                    )
        return self._watchdog

    def _take_locals(self) -> TakeLocals | None:
        if not self.config.watchdog.locals:
            return None
        from otel_introspect.engine.locals import LocalsTaker

        return LocalsTaker(self.config.watchdog.locals_redact.split(","), self._clock).take

    @property
    def request_trigger(self) -> RequestTrigger:
        """What decides whether a request that asks to be profiled is."""
        if self._request_trigger is None:
            with self._assembling:
                if self._request_trigger is None:
                    from otel_introspect.triggers.requests import RequestTrigger

                    self._request_trigger = RequestTrigger(self.config.profiler)
        return self._request_trigger

    @property
    def profiler(self) -> Profiler:
        """What takes profiles."""
        if self._profiler is None:
            with self._assembling:
                if self._profiler is None:
                    from otel_introspect.profiling.profiler import Profiler

                    self._profiler = Profiler(
                        self.config, self.table, self.reporter, self.introspector, clock=self._clock
                    )
        return self._profiler

    def _flight_recorder(self) -> FlightRecorder | None:
        if self.config.recorder.directory == "none":
            return None
        return FlightRecorder(
            self.recorder_directory, self.resource, self.config.watchdog.threshold if self.finds_slow else 0
        )

    def resource(self) -> Mapping[str, Any]:
        """What this process is, as the attributes of an OpenTelemetry resource."""
        provider = self.tracer_provider or get_tracer_provider()
        resource = getattr(provider, "resource", None)  # which the API's own provider does not have
        return dict(getattr(resource, "attributes", {}))

    @property
    def recovery(self) -> Recovering | None:
        """What recovers the requests of dead processes; None if nothing is to."""
        if self._recovery is None and self.make_recovery is not None and self.recorder is not None:
            with self._assembling:
                if self._recovery is None:
                    self._recovery = self.make_recovery()
        return self._recovery

    def recover_soon(self, *, settle: float = 0) -> bool:
        """Have what dead processes have left sent off, if there is any, in so many seconds. A few system calls.

        Returns:
            Whether somebody will.
        """
        with fail_open("looking for what dead processes have left"):
            if not self.recovers or self._recovery_waits or not self._may_recover():
                return False
            if GREENLETS in modules:
                self._note_hub()
            self._recovery_waits = True  # first, as it may be done at once
            if self.courier.run(partial(self._recover, settle)):
                return True
            self._recovery_waits = False
        return False

    def _may_recover(self) -> bool:
        if self.make_recovery is None or self.recorder is None:
            return False
        if self._recovery is not None:
            return self._recovery.is_needed()
        # Without loading what does it: nearly always there is nothing.
        with suppress(OSError, DirectoryRefused):  # who wants to write there is told
            return next(abandoned(self.recorder_directory), None) is not None
        return False

    def _recover(self, settle: float) -> None:
        """Runs on the courier's thread."""
        try:
            if self.watching and (not settle or self.courier.pause(settle)) and self.recovers:
                recovery = self.recovery
                if recovery is not None:
                    recovery.run()
        finally:
            self._recovery_waits = False

    def _look_for_the_dead(self) -> None:
        now = self._clock_or_system.monotonic()
        if now >= self._next_recovery:
            self._next_recovery = now + _RECOVERY_PERIOD
            self.recover_soon()

    def profiler_if_made(self) -> Profiler | None:
        """The same if anybody has needed it yet."""
        return self._profiler

    def leave_out(self, key: Hashable) -> None:
        """Collect nothing about the entry span that has this key in the table."""
        # First, as closing a slow one would put its profile on it; and again, for one that has begun in between.
        if self._profiler is not None:
            self._profiler.leave_out(key)
        self.table.discard(key)
        if self.recorder is not None:
            self.recorder.end(key)
        if self._profiler is not None:
            self._profiler.leave_out(key)

    def wake(self) -> None:
        """Called as the first span starts after a while without any. Runs on the request's path, but seldom."""
        if (self.profiles or self.peek is not None) and not ALARM.is_standing_by and is_main_thread():
            ALARM.stand_by()
        if self.recorder is not None:
            self.recorder.open()
        if GREENLETS in modules:
            self._note_hub()
        if self.peek is not None:
            self.peek.open()  # before the introspector has looked, which may be at once
        self.introspector.wake()
        if self.peek is not None:
            self.peek.begin()
        if self.dead_man is not None:
            self.dead_man.begin()

    def _note_hub(self) -> None:
        self.courier.note_hub()
        if self.records is not None:
            self.records.courier.note_hub()

    def prepare(self) -> None:
        """Load now what a slow span will need: for servers, before their first request.

        Loading reads files, and whoever reads a file lets go of the GIL. A request that keeps it for long stretches, in
        a regular expression say, would be over before all was loaded.
        """
        with fail_open("loading"):
            is_surroundings("")
            is_library("")
            if self.recorder is not None:
                self.recorder.open()
                self.recover_soon()
            _ = self.watchdog
            if self.profiles:
                from otel_introspect.profiling import sessions

                sessions.prepare()
                _ = self.profiler
            if (self.profiles or self.peek is not None) and is_main_thread():
                ALARM.stand_by()

    def tracer(self) -> Tracer:
        """For spans of our own."""
        return get_tracer("otel_introspect", tracer_provider=self.tracer_provider)

    def _look(self) -> int | None:
        if self.dead_man is not None:
            self._read_dump(self.dead_man)
        if self.peek is not None:
            self.peek.give_way()
        slow_wait = self.watchdog.look() if self.finds_slow else None
        waits = [slow_wait]
        if self._checkpoints is not None:
            waits.append(self._checkpoints.hand_on())
        if self.profiles or self._profiler is not None:
            waits.append(self.profiler.look())
        if self._vital_signs is not None:
            waits.append(self._vital_signs.look())
            if self.table:
                self._look_for_the_dead()
        wait = min((each for each in waits if each is not None), default=None)
        if self.peek is not None:
            self._set_peek(self.peek, slow_wait, is_over=wait is None)
        if self.dead_man is not None:
            wait = self._put_off(self.dead_man, wait)
        return wait

    def _set_peek(self, peek: Peek, wait: int | None, *, is_over: bool) -> None:
        if is_over and self.introspector.parked:
            peek.rest()
            if self.introspector.parked:
                return
            # A request has begun meanwhile, and counts on the timer that we may have stopped.
        peek.go_on(wait)

    def stop(self) -> None:
        """Watch nothing more and give back the thread."""
        self.watching = False
        self.introspector.stop()
        if self.peek is not None:
            self.peek.close()
        if self.dead_man is not None:
            self.dead_man.close()
        self.table.clear()
        if self._profiler is not None:
            self._profiler.close()
        if self._courier is not None:
            self._courier.stop()
        if self._records is not None:
            self._records.close()
        if self.recorder is not None:
            self.recorder.close()
        ALARM.dismiss()

    def _forked(self) -> None:
        # A lock may be held by a thread that is not there any more.
        self._assembling = threading.RLock()
        for part in (
            self._reporter,
            self._checkpoints,
            self._courier,
            self._records,
            self.peek,
            self.dead_man,
            self._vital_signs,
        ):
            if part is not None:
                part.after_fork()
        self._next_recovery = 0
        self._recovery_waits = False
        self.table.keep_only(get_ident())
        self.inherited = frozenset([*self.table.open, *self.table.slow])
        handover.after_fork()
        if self._profiler is not None:
            self._profiler.after_fork()
        if self.table or (self._profiler is not None and self._profiler.is_at_work):
            self.introspector.wake()
            if self.dead_man is not None:
                self.dead_man.begin()
        # A server's child in the place of one that was killed, perhaps; one that is soon over leaves it to others.
        self.recover_soon(settle=_FORK_SETTLES)


def begins_profiles(config: ProfilerConfig) -> bool:
    """Whether an entry span may be profiled from its start."""
    triggers = config.triggers
    return ("ratio" in triggers and config.ratio > 0) or ("request" in triggers and bool(config.key))


def _idle_seconds(config: IntrospectConfig) -> float:
    """How long a new span may go unseen."""
    soonest = TAIL_AGE_MS if "tail" in config.profiler.triggers else config.watchdog.threshold
    soonest = max(min(soonest, config.watchdog.threshold or soonest), 1)
    if config.recorder.directory != "none":
        soonest = min(soonest or _PERIOD_MS, _PERIOD_MS)
    return soonest * _SECONDS


def _write_down_peeked(recorder: FlightRecorder, key: Hashable, capture: Capture, taken: int) -> None:
    # At once, in the handler: if the process is killed before the GIL is let go of, nobody has written anything else.
    recorder.saw(key, capture, taken, thread_id=get_ident(), observer="signal")


def _described(span: Any) -> Mapping[str, Any]:  # noqa: ANN401 - the SDK's span, or what an adapter has in its place
    """What the flight recorder is told of a span beside where it is."""
    attributes = getattr(span, "attributes", None) or {}
    kept = {key: attributes[key] for key in _DESCRIBING if key in attributes}
    return {"name": getattr(span, "name", ""), "attributes": kept}


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
        own = Introspection(IntrospectConfig.from_env())
        if _fallback is None:  # making it takes long enough for another thread to have made one
            _fallback = own
            atexit.register(own.stop)  # no provider tells it; and a timer that rings on would end the process
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
