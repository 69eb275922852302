"""The profiler: begins a profile of a span, ends it, and has its text put on the span before that ends.

A profile of a request that *turned slow* begins when the watchdog says so. Under *tail* it begins at the age of 50 ms,
and is thrown away unless the request turns out slow, fails or hits its deadline. All others begin where somebody asks.
"""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import ref

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, StatusCode

from otel_introspect import semconv
from otel_introspect.config import TAIL_AGE_MS, IntrospectConfig, ProfilerConfig
from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.closing import close_before_end
from otel_introspect.engine.introspector import Introspector
from otel_introspect.engine.live_table import LiveTable, Watch
from otel_introspect.engine.native import allocate_lock, get_ident
from otel_introspect.engine.places import Place
from otel_introspect.engine.sampler import MAX_THREADS, Sampled, Sampler
from otel_introspect.engine.stacks import Position
from otel_introspect.faults import count, fail_open
from otel_introspect.profiling.console_text import console_text
from otel_introspect.profiling.pyinstrument_engine import CallHook
from otel_introspect.profiling.sessions import Facts, summed_session, whole_session
from otel_introspect.sinks.reporter import ProfileReport, SpanReporter
from otel_introspect.triggers.admission import Admission, Ticket
from otel_introspect.triggers.refusal import Refused, refuse

if TYPE_CHECKING:
    from otel_introspect.profiling.store import ProfileStore

Trigger = Literal["slow", "tail", "request", "ratio", "code"]
Where = Callable[[], "int | Place | None"]

_MILLISECONDS: Final = 1000
_NANOSECONDS: Final = 1_000_000_000
# What somebody asks for explicitly is sampled so much more often.
_EXPLICIT: Final = 10
_SHORTEST_MS: Final = 1
# Open spans that one look for tails goes through.
_MAX_LOOKED_AT: Final = 200
_RATIO_BITS: Final = 64
_MIXER: Final = 0x9E37_79B9_7F4A_7C15  # odd, so that no two become one
_FLUSH_SECONDS: Final = 5.0
_EXCEPTION_EVENT: Final = "exception"  # what record_exception() adds


class LiveProfile:
    """A profile that is being taken.

    Args:
        profiler: Takes it.
        trigger: Why.
        span: What it is about.
        sampled: What is sampled, unless pyinstrument does it.
        ticket: The place among the explicit ones.
        began_in: Where; the tree begins there.
    """

    def __init__(  # noqa: PLR0913 - facts, each by its name
        self,
        profiler: Profiler,
        trigger: Trigger,
        span: Any,  # noqa: ANN401 - a span, or what an adapter has in its place
        *,
        sampled: Sampled,
        ticket: Ticket | None,
        began_in: tuple[Position, ...] = (),
    ) -> None:
        self.id = secrets.token_hex(16)
        self.trigger: Trigger = trigger
        self.began: Final = time.time()
        self.is_cut = False
        """Whether it has stopped before the work did."""
        self.hook: CallHook | None = None
        self._profiler = profiler
        self.was_recording: Final[bool] = span.is_recording()
        """Whether its span would have taken it at its start."""
        self._span: Callable[[], Any] = ref(span)
        self._name: Final[str] = str(getattr(span, "name", "") or "")
        self._sampled = sampled
        self._ticket = ticket
        self._began_in = began_in
        self._started_at = profiler.now()
        self._stopped_at: float | None = None
        self._thread: Final = get_ident()
        self._cpu: Final = time.thread_time()
        self._cpu_time = 0.0
        self._is_over = allocate_lock()  # taken once and never given back
        self._session: Any = None

    def renew(self) -> None:
        """In a forked child: be another one than the parent's, which goes on with its own."""
        self.id = secrets.token_hex(16)
        self._is_over = allocate_lock()

    @property
    def sampled(self) -> Sampled:
        """What is sampled."""
        return self._sampled

    @property
    def stopped(self) -> bool:
        """Whether nothing more is added to it."""
        return self._stopped_at is not None

    def age(self, now: float) -> float:
        """For how long it has been taken, in seconds."""
        return now - self._started_at

    def span(self) -> Any:  # noqa: ANN401 - as above
        """The span; None if it is gone."""
        return self._span()

    def stop(self) -> None:
        """Add nothing more."""
        if self._stopped_at is None:
            self._stopped_at = self._profiler.now()
            if get_ident() == self._thread:
                self._cpu_time = time.thread_time() - self._cpu
            with fail_open("stopping to sample"):
                self._profiler.sampler.stop(self._sampled)
            if self.hook is not None:
                self.hook.stop()

    def finish(self) -> bool:
        """End it and put it on its span. Never raises.

        The text is made on the introspector's thread; the caller waits for it.

        Returns:
            Whether the span has it.
        """
        if not self._is_over.acquire(blocking=False):
            return False
        with fail_open("finishing a profile"):
            return self._profiler.finish(self)
        return False

    def discard(self) -> None:
        """End it, and forget what was seen. Never raises."""
        if self._is_over.acquire(blocking=False):
            with fail_open("discarding a profile"):
                self.end()

    def cut(self) -> None:
        """Stop it before the work is over; the next one may begin."""
        if not self.stopped:
            self.is_cut = True
            self.stop()
            self.leave()

    def leave(self) -> None:
        """Give back the place among the explicit ones, if it has one."""
        if self._ticket is not None:
            self._ticket.leave()

    def end(self) -> None:
        """Give back what it has."""
        try:
            self.stop()
        finally:
            self.leave()
            self._profiler.forget(self)

    def close(self) -> None:
        """Called as the span is about to end; under ``tail`` only some are kept."""
        span = self.span()
        if self.trigger == "tail":
            self._profiler.catch_up(self.sampled.key)  # that it is slow may be known and not written yet
        if self.trigger == "tail" and not (span is not None and _is_worth_keeping(span)):
            self.discard()
        else:
            self.finish()

    def facts(self) -> Facts:
        """What is known of it beside its samples."""
        sampled = self._sampled
        ended = self._stopped_at if self._stopped_at is not None else self._profiler.now()
        by_alarm = sampled.alarm_count
        total = sampled.recording.sample_count
        by = "the alarm" if by_alarm == total else f"the alarm ({by_alarm} of {total}) and a thread"
        return Facts(
            start_time=self.began,
            duration=ended - self._started_at,
            interval=sampled.interval,
            description=f"{self._name_now()} ({self.trigger}; sampled by {by if by_alarm else 'a thread'})",
            cpu_time=self._cpu_time,
            began_in=self._began_in,
        )

    def _name_now(self) -> str:
        # Frameworks name a request's span anew when they have found its route.
        return str(getattr(self.span(), "name", "") or self._name)

    def session(self) -> Any:  # noqa: ANN401 - pyinstrument is not loaded for an annotation
        """The whole profile, as a ``pyinstrument.session.Session``; it is stopped first."""
        self.stop()
        if self._session is None:
            facts = self.facts()
            if self.hook is not None:
                self._session = self.hook.session(facts.description)
            else:
                self._session = whole_session(self._sampled.recording, facts)
        return self._session


class Profiler:
    """Takes the profiles of one process.

    Args:
        config: The settings.
        table: The entry spans.
        reporter: Puts profiles on spans.
        introspector: The thread that samples and makes text.
        clock: What time it is, for the age of spans.
    """

    def __init__(
        self,
        config: IntrospectConfig,
        table: LiveTable,
        reporter: SpanReporter,
        introspector: Introspector,
        *,
        clock: Clock | None = None,
    ) -> None:
        profiler = config.profiler
        self.sampler: Final = Sampler()
        self.admission: Final = Admission()
        self.triggers: Final = frozenset(profiler.triggers)
        self.store: Final = _store(profiler) if profiler.store else None
        self.taken: dict[str, int] = {}
        """How many profiles were put on spans, by trigger."""
        self._config = profiler
        self._table = table
        self._reporter = reporter
        self._introspector = introspector
        self._clock: Clock = SystemClock() if clock is None else clock
        self._live: dict[str, LiveProfile] = {}
        self._of_spans: dict[Hashable, LiveProfile] = {}
        self._tails: dict[Hashable, LiveProfile | None] = {}
        """Of the spans that have been looked at for their age: None where there is no profile, or none any more."""
        self._ratio_bound = int(profiler.ratio * 2**_RATIO_BITS) if "ratio" in self.triggers else 0

    now = staticmethod(time.monotonic)

    def interval_ms(self, trigger: Trigger) -> int:
        """How often a profile of this kind is sampled."""
        interval = self._config.interval
        return max(interval // _EXPLICIT, _SHORTEST_MS) if trigger in ("request", "code") else interval

    # Beginning.

    def begin(  # noqa: PLR0913 - facts, each by its name
        self,
        trigger: Trigger,
        span: Any,  # noqa: ANN401 - a span, or what an adapter has in its place
        key: Hashable,
        where: Where,
        *,
        began_in: tuple[Position, ...] = (),
        interval_ms: int | None = None,
        ends_here: bool = False,
    ) -> LiveProfile:
        """Begin a profile of *span*. From any thread.

        Args:
            trigger: Why.
            span: What it is about.
            key: By which work in pools is known to be its own.
            where: Says where it is at any time.
            began_in: The stack that is around it, innermost frame first, if it is known.
            interval_ms: How often to sample, if not as configured.
            ends_here: Whether it will end on this thread, in this task, where the work is done, too: pyinstrument's
                hook can be taken off there only.

        Raises:
            Refused: If it can't be taken now.
        """
        ticket = None
        if trigger in ("request", "code"):
            ticket = self.admission.enter(limited=trigger == "request")
        elif len(self.sampler) >= MAX_THREADS:
            raise refuse("busy")
        interval = (interval_ms or self.interval_ms(trigger)) / _MILLISECONDS
        live = None
        try:
            sampled = Sampled(key, where, interval, self.now())
            live = LiveProfile(self, trigger, span, sampled=sampled, ticket=ticket, began_in=began_in)
            self._reporter.expect_profile(span)
            self._live[live.id] = live
            if ends_here and ticket is not None and self._config.engine == "pyinstrument":
                self._introspector.wake()
                live.hook = CallHook.start(interval)  # last, as it sees all that is called here from then on
            if live.hook is None:
                self.sampler.start(sampled)
                self._introspector.wake()
        except BaseException:
            if live is not None:
                live.discard()
            elif ticket is not None:
                ticket.leave()
            raise
        return live

    def begin_for_entry(
        self,
        trigger: Trigger,
        span: Any,  # noqa: ANN401 - as above
        key: Hashable,
        *,
        ends_here: bool = False,
    ) -> LiveProfile:
        """Begin a profile of an entry span, which ends with that; see ``begin``.

        Raises:
            Refused: If it can't be taken now.
        """
        live = self.begin(trigger, span, key, self._whereabouts(key), ends_here=ends_here)
        before = self._of_spans.get(key)
        self._of_spans[key] = live
        if before is not None:
            before.discard()  # a span has one: somebody has now asked for what was only likely to be wanted
        try:
            close_before_end(span, live)
        except BaseException:
            live.discard()
            raise
        return live

    def _whereabouts(self, key: Hashable) -> Where:
        """Says where an entry span runs; where it was last, once it is left out of the table."""
        last: int | Place | None = None

        def where() -> int | Place | None:
            nonlocal last
            last = self._table.place_of(key) or last
            return last

        return where

    def is_chosen(self, trace_id: int) -> bool:
        """Whether the trigger ``ratio`` chooses this trace: the same ones in each service."""
        # Mixed, as OpenTelemetry's own sampler chooses by the same bits: a tenth of what it leaves is wanted, not all.
        return bool(self._ratio_bound) and (trace_id * _MIXER) % 2**_RATIO_BITS < self._ratio_bound

    def turned_slow(self, span: Any, watch: Watch) -> None:  # noqa: ANN401 - as above
        """The watchdog has found *span* slow; on the introspector's thread."""
        live = self._of_spans.get(watch.key)
        if live is not None:
            if live.trigger == "tail":
                watch.before_close(live.finish)
            return
        if not self.triggers & {"slow", "tail"}:
            return
        # Under ``tail`` it comes too late for the beginning, as where the first request loads all this.
        try:
            live = self.begin("slow" if "slow" in self.triggers else "tail", span, watch.key, lambda: watch.place)
        except Refused:
            return
        self._of_spans[watch.key] = live
        watch.before_close(live.finish)
        if watch.closed:  # meanwhile, perhaps without having heard of it
            live.discard()

    def catch_up(self, key: Hashable) -> None:
        """Have written what is known of the entry span that has this key, if it is slow."""
        watch = self._table.slow.get(key)
        if watch is not None:
            watch.catch_up()

    def leave_out(self, key: Hashable) -> None:
        """Take no profile of the entry span that has this key, unless somebody has asked for it."""
        live = self._of_spans.get(key)
        if live is not None and live.trigger != "request":
            live.discard()

    # On the introspector's thread.

    def look(self) -> int | None:
        """Do what is due; in how many nanoseconds to come again, None if there is nothing to come for."""
        waits: list[float] = []
        if "tail" in self.triggers and self._table:
            waits.append(self._begin_tails())
        if self._live or self._tails:
            self._end_what_is_over()
        wait = self.sampler.tick()
        if wait is not None:
            waits.append(wait)
        return int(min(waits) * _NANOSECONDS) if waits else None

    def _begin_tails(self) -> float:
        """Begin to sample what has reached the age; in how many seconds the next one does."""
        now = self._clock.wall()
        horizon = now - TAIL_AGE_MS * _NANOSECONDS // _MILLISECONDS
        for key, (reference, _) in _oldest(self._table, _MAX_LOOKED_AT):
            if key in self._tails:
                continue
            span = reference()
            if span is None:
                continue
            if span.start_time > horizon:
                return float(max(span.start_time - horizon, 0) / _NANOSECONDS)
            if key in self._of_spans:
                continue
            self._tails[key] = None
            with fail_open("beginning to profile a request"), suppress(Refused):
                live = self._tails[key] = self.begin_for_entry("tail", span, key)
                if key not in self._table:  # it was left out, or has ended, meanwhile
                    live.discard()
        return TAIL_AGE_MS / _MILLISECONDS

    def _end_what_is_over(self) -> None:
        now = self.now()
        longest = self._config.max_duration / _MILLISECONDS
        for key in list(self._tails):
            tail = self._tails.pop(key) if key not in self._table else None
            if tail is not None:
                tail.stop()  # what it has seen goes with its span, unless that fails
        for live in list(self._live.values()):
            with fail_open("looking after a profile"):
                span = live.span()
                # An end that was running when we wanted to know of it has told nobody.
                if span is None or (live.trigger != "code" and not span.is_recording()):
                    live.discard()
                elif live.hook is None and live.age(now) > longest:  # pyinstrument's stops on its own thread only
                    live.cut()

    # Ending.

    def finish(self, live: LiveProfile) -> bool:
        """Put *live* on its span; see ``LiveProfile.finish``."""
        live.stop()
        span = live.span()
        facts = live.facts()
        reports: list[ProfileReport] = []
        try:
            if span is None:
                return False
            if not self._introspector.do(lambda: reports.append(self._report_of(live, span, facts))) or not reports:
                count("dropped", "profile: its text was not ready in time")
                return False
            if not self._reporter.report_profile(span, reports[0]):
                if live.was_recording and not span.is_recording():
                    count("dropped", "profile: its span has ended before it")
                return False
            self.taken[live.trigger] = self.taken.get(live.trigger, 0) + 1
            return True
        finally:
            live.end()

    def _report_of(self, live: LiveProfile, span: Any, facts: Facts) -> ProfileReport:  # noqa: ANN401 - as above
        recording = live.sampled.recording
        recording.fold()
        if live.hook is not None:
            session: Any = live.hook.session(facts.description)
        else:
            session = summed_session(recording, facts)
        url = None
        if self.store is not None:
            with fail_open("storing a profile"):
                url = self.store.put(live.id, live.session)
        text, is_trimmed = console_text(session, self._reporter.room_for_profile(span, url))
        return ProfileReport(
            taken=time.time_ns(),
            id=live.id,
            text=text,
            trigger=live.trigger,
            engine="sampler" if live.hook is None else "pyinstrument",
            interval_ms=max(round(facts.interval * _MILLISECONDS), 1),
            sample_count=session.sample_count,
            duration_ms=round(facts.duration * _MILLISECONDS),
            truncated=is_trimmed or live.is_cut or recording.is_full,
            url=url,
        )

    def forget(self, live: LiveProfile) -> None:
        """Called when *live* is over."""
        if self._live.pop(live.id, None) is not None:
            span = live.span()
            if span is not None:
                self._reporter.expect_no_profile(span)
        if self._tails.get(live.sampled.key) is live:
            self._tails[live.sampled.key] = None  # until it is out of the table, or another one would begin
        if self._of_spans.get(live.sampled.key) is live:
            del self._of_spans[live.sampled.key]

    def close(self) -> None:
        """Take no more profiles, and give back what was borrowed."""
        for live in list(self._live.values()):
            live.discard()
        self.sampler.close()
        if self.store is not None:
            self.store.flush(_FLUSH_SECONDS)
            self.store.stop()

    @property
    def is_at_work(self) -> bool:
        """Whether there is a profile that is being taken."""
        return bool(self._live)

    def after_fork(self) -> None:
        """In a forked child: go on with what the thread that forked is about."""
        self.admission.after_fork()
        if self.store is not None:
            self.store.after_fork()
        here = get_ident()
        inherited = [live for live in self._live.values() if live.sampled.where() == here]
        self._tails.clear()
        self._of_spans = {key: live for key, live in self._of_spans.items() if live in inherited}
        for live in inherited:
            live.renew()
        self._live = {live.id: live for live in inherited}
        self.sampler.forget([live.sampled for live in self._live.values() if live.hook is None])


def _store(config: ProfilerConfig) -> ProfileStore:
    # Late, as most keep nothing but the text.
    from otel_introspect.profiling.store import ProfileStore

    return ProfileStore(config.store, max_count=config.store_max_count, max_bytes=config.store_max_bytes)


def _is_worth_keeping(span: Span) -> bool:
    """Whether a request that was fast has failed, or has hit its deadline."""
    status = getattr(getattr(span, "status", None), "status_code", None)
    attributes = getattr(span, "attributes", None) or {}
    if status is StatusCode.ERROR or attributes.get(semconv.INTERRUPTED) or ERROR_TYPE in attributes:
        return True
    return any(event.name == _EXCEPTION_EVENT for event in getattr(span, "events", ()))


def _oldest(table: LiveTable, number: int) -> list[tuple[Hashable, Any]]:
    while True:
        try:
            return list(islice(table.open.items(), number))
        except RuntimeError:  # a request changed it meanwhile
            continue
