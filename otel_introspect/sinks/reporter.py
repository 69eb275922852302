"""The reporter: makes span attributes and events of what the watchdog saw, within the bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.semconv._incubating.attributes.thread_attributes import THREAD_ID, THREAD_NAME
from opentelemetry.semconv.attributes.code_attributes import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    CODE_STACKTRACE,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from otel_introspect import semconv
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine import closing
from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.live_table import Watch
from otel_introspect.engine.recorder_reading import RecordedEvent
from otel_introspect.engine.stack_text import StackText, cut, resolve, shorts, utf8_length
from otel_introspect.engine.stacks import Capture
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.faults import count, fail_open
from otel_introspect.sinks import Sink
from otel_introspect.sinks.budget import SPAN_BYTES, ProcessBudget, SpanLedger, SpanLedgers, size_of
from otel_introspect.sinks.span_events import SpanEventSink, set_attribute
from otel_introspect.tally import late, tally

if TYPE_CHECKING:  # loaded only where they are asked for
    from otel_introspect.engine.locals import TakenLocals

# An event's keys and numbers, beside its text.
_ENVELOPE: Final = 600
# As much of a URL as has room in that.
_URL_BYTES: Final = 150
# The least that is kept for each later snapshot of the span.
_RESERVE: Final = 1_300
# Later snapshots than these are improbable, and are not saved for.
_LOOKAHEAD: Final = 4
# What local variables may have at most, and what they leave to the text of each later stack.
_MAX_LOCALS: Final = 4 * 1024
_LATER_STACK: Final = 1_000
# Below this a text says nothing any more.
_LEAST_TEXT: Final = 200


class Overrun(NamedTuple):
    """Work that has outlived its limit.

    Args:
        taken: When it was interrupted, or ended, in nanoseconds since the epoch.
        capture: The stack that was interrupted; None if it is not known.
        limit_ms: How long it was allowed to take.
        elapsed_ms: How long it had taken by then.
        mechanism: How it is enforced there.
        attempts: How often it was interrupted.
        reason: Why it went on to its end all the same; None if it was ended.
        error_type: What was raised; None if nothing was.
    """

    taken: int
    capture: Capture | None
    limit_ms: int
    elapsed_ms: int
    mechanism: str
    attempts: int
    reason: str | None
    error_type: str | None


class ProfileReport(NamedTuple):
    """A finished profile.

    Args:
        taken: When it ended, in nanoseconds since the epoch.
        id: 32 hexadecimal digits.
        text: The tree of calls; no longer than a string may be.
        trigger: Why it was taken.
        engine: What took it.
        interval_ms: The sampling interval.
        sample_count: How many samples it has.
        duration_ms: The time that it covers.
        truncated: Whether something is missing, in the text or at the end.
        url: Where the whole of it is; None if it was not stored.
    """

    taken: int
    id: str
    text: str
    trigger: str
    engine: str
    interval_ms: int
    sample_count: int
    duration_ms: int
    truncated: bool
    url: str | None


class SpanReporter:
    """Adds snapshots to spans; nothing of it ever is longer, for a span or for the process, than it may be.

    Args:
        config: The sinks and the longest string.
        clock: For the process's budget.
        sinks: Instead of those that *config* names.
        budget: Instead of one of its own.
        copies: Are given all that the others have taken.
        may_read: Whether the source of a frame may be read from a file; any may if None is given.
    """

    def __init__(  # noqa: PLR0913 - settings, each by its name
        self,
        config: EvidenceConfig,
        *,
        clock: Clock | None = None,
        sinks: Sequence[Sink] | None = None,
        budget: ProcessBudget | None = None,
        copies: Sequence[Sink] = (),
        may_read: Callable[[str], bool] | None = None,
    ) -> None:
        self._sinks: Sequence[Sink] = (SpanEventSink(),) if sinks is None else sinks
        # Each of them sends all of it; a log record has something beside.
        self._times = len(self._sinks)
        self._extra = sum(getattr(each, "extra_bytes", 0) for each in self._sinks)
        self._late = [ask for each in self._sinks if (ask := getattr(each, "takes_ended", None)) is not None]
        self._copies = copies
        self._may_read = may_read
        self._max_bytes = config.max_attribute_bytes
        # However long a string may be: half of a span is for the snapshots.
        self._profile_size = min(config.max_attribute_bytes, SPAN_BYTES // 2) + _ENVELOPE
        self._budget = ProcessBudget(SystemClock() if clock is None else clock) if budget is None else budget
        self._ledgers = SpanLedgers()

    def has_room(self) -> bool:
        """Whether the process may emit another snapshot now."""
        return self._budget.has_room()

    def accepts(self, span: Any) -> bool:  # noqa: ANN401 - a span, or what an adapter has in its place
        """Whether evidence about *span* finds a place: of one that has ended only where log records are emitted."""
        return span.is_recording() or any(takes_ended(span) for takes_ended in self._late)

    def adopt(self, span: Any, watch: Watch) -> None:  # noqa: ANN401 - a span, or what an adapter has in its place
        """Have *watch* closed before *span* ends: an ended span is read-only, and warns who writes to it."""
        with fail_open("adopting a slow span"):
            closing.adopt(span, watch)

    def mark_slow(self, span: Any) -> None:  # noqa: ANN401 - as above
        """Say on the span that it is slow."""
        if span.is_recording():
            set_attribute(span, semconv.SLOW, value=True)
            set_attribute(span, semconv.SNAPSHOTS, self._ledgers.of(span).snapshots)

    def report(self, span: Any, snapshot: Snapshot) -> bool:  # noqa: ANN401 - as above
        """Add *snapshot*, and the other threads if it has them; False if there was no room."""
        if not self.accepts(span):
            return False
        ledger = self._ledgers.of(span)
        with ledger.lock:
            attributes = self._snapshot_attributes(snapshot, ledger)
            if attributes is None or not self._emit(
                span, semconv.STACK_SNAPSHOT_EVENT, attributes, snapshot.taken, ledger
            ):
                return False
            ledger.snapshots += 1
            tally("snapshots", snapshot.observer)
            late(snapshot.lateness_ms, {semconv.OBSERVER: snapshot.observer})
            set_attribute(span, semconv.SNAPSHOTS, ledger.snapshots)
            if snapshot.others is not None and not ledger.threads_shown:
                ledger.threads_shown = True
                text = snapshot.others.text(min(self._max_bytes, self._fair_share(ledger, snapshot.remaining)))
                others: dict[str, AttributeValue] = {
                    semconv.THREADS_TEXT: text,
                    semconv.THREADS_COUNT: snapshot.others.total,
                }
                self._emit(span, semconv.THREADS_EVENT, others, snapshot.taken, ledger)
        return True

    def report_overrun(self, span: Any, overrun: Overrun) -> bool:  # noqa: ANN401 - as above
        """Mark *span* as interrupted, if it was, and add the event that says where; False if there was no room."""
        if overrun.error_type is not None:
            set_attribute(span, semconv.INTERRUPTED, value=True)
            set_attribute(span, ERROR_TYPE, overrun.error_type)
        ledger = self._ledgers.of(span)
        with ledger.lock:
            attributes: dict[str, AttributeValue] = {
                semconv.TIMEOUT_LIMIT_MS: overrun.limit_ms,
                semconv.TIMEOUT_ELAPSED_MS: overrun.elapsed_ms,
                semconv.TIMEOUT_MECHANISM: overrun.mechanism,
                semconv.TIMEOUT_ENFORCED: overrun.reason is None,
                semconv.TIMEOUT_ATTEMPTS: overrun.attempts,
            }
            if overrun.reason is not None:
                attributes[semconv.TIMEOUT_REASON] = cut(overrun.reason, min(self._max_bytes, _LEAST_TEXT))
            if overrun.capture is not None:
                room = min(self._max_bytes, ledger.left - ledger.reserved - _ENVELOPE)
                attributes[CODE_STACKTRACE], _ = resolve(overrun.capture).text(max(room, _LEAST_TEXT))
            return self._emit(span, semconv.TIMEOUT_EVENT, attributes, overrun.taken, ledger)

    def restore(self, span: Any, events: Iterable[RecordedEvent]) -> None:  # noqa: ANN401 - as above
        """Put on *span* again what was on it in a process that is dead, and go on from there."""
        ledger = self._ledgers.of(span)
        with ledger.lock:
            for name, timestamp, attributes in events:
                if not self._emit(span, name, attributes, timestamp, ledger):
                    continue
                if name == semconv.STACK_SNAPSHOT_EVENT:
                    ledger.snapshots += 1
                elif name == semconv.THREADS_EVENT:
                    ledger.threads_shown = True
                elif name == semconv.PROFILE_EVENT and isinstance(attributes.get(semconv.PROFILE_ID), str):
                    set_attribute(span, semconv.PROFILE_ID, attributes[semconv.PROFILE_ID])
                elif name == semconv.TIMEOUT_EVENT and attributes.get(semconv.TIMEOUT_ENFORCED) is True:
                    set_attribute(span, semconv.INTERRUPTED, value=True)

    def expect_profile(self, span: Any) -> None:  # noqa: ANN401 - as above
        """Keep room for a profile on *span*, until ``expect_no_profile``."""
        ledger = self._ledgers.of(span)
        with ledger.lock:
            ledger.reserved += self._profile_size

    def expect_no_profile(self, span: Any) -> None:  # noqa: ANN401 - as above
        """Give back the room that was kept for one."""
        ledger = self._ledgers.of(span)
        with ledger.lock:
            ledger.reserved = max(ledger.reserved - self._profile_size, 0)

    def room_for_profile(self, span: Any, url: str | None = None) -> int:  # noqa: ANN401 - as above
        """How many bytes the text of a profile on *span* may have, beside *url*."""
        ledger = self._ledgers.of(span)
        with ledger.lock:
            others = max(ledger.reserved - self._profile_size, 0)
            left = ledger.left - others - _ENVELOPE
        # One who asks for it late finds the room that the snapshots have left: then its text is short.
        room = min(self._profile_size - _ENVELOPE, left)
        return max(room - self._beyond_envelope(url), min(_LEAST_TEXT, self._max_bytes))

    def _beyond_envelope(self, url: str | None) -> int:
        """How many bytes of *url* the envelope has no room for."""
        return 0 if url is None else max(min(utf8_length(url), self._max_bytes) - _URL_BYTES, 0)

    def report_profile(self, span: Any, profile: ProfileReport) -> bool:  # noqa: ANN401 - as above
        """Add *profile* to *span*; False if there was no room."""
        if not self.accepts(span):
            return False
        attributes: dict[str, AttributeValue] = {
            semconv.PROFILE_TEXT: profile.text,
            semconv.PROFILE_ID: profile.id,
            semconv.PROFILE_TRIGGER: profile.trigger,
            semconv.PROFILE_ENGINE: profile.engine,
            semconv.PROFILE_INTERVAL_MS: profile.interval_ms,
            semconv.PROFILE_SAMPLE_COUNT: profile.sample_count,
            semconv.PROFILE_DURATION_MS: profile.duration_ms,
            semconv.PROFILE_TRUNCATED: profile.truncated,
        }
        if profile.url is not None:
            if utf8_length(profile.url) <= self._max_bytes:
                attributes[semconv.PROFILE_URL] = profile.url
            else:
                count("dropped", "profile: its URL is too long")  # a part of it leads nowhere
        ledger = self._ledgers.of(span)
        with ledger.lock:
            reserved = ledger.reserved
            ledger.reserved = max(reserved - self._profile_size, 0)
            try:
                if not self._emit(span, semconv.PROFILE_EVENT, attributes, profile.taken, ledger):
                    return False
            finally:
                ledger.reserved = reserved
            set_attribute(span, semconv.PROFILE_ID, profile.id)
        return True

    def after_fork(self) -> None:
        """Make a forked child's copy usable."""
        self._ledgers.after_fork()

    def _fair_share(self, ledger: SpanLedger, remaining: int) -> int:
        """What one text may have so that each snapshot that is still to come has the same."""
        return (ledger.left - ledger.reserved) // (min(remaining, _LOOKAHEAD) + 1) - _ENVELOPE

    def _snapshot_attributes(self, snapshot: Snapshot, ledger: SpanLedger) -> dict[str, AttributeValue] | None:
        room = min(self._max_bytes, self._fair_share(ledger, snapshot.remaining))
        if room < min(_LEAST_TEXT, self._max_bytes):
            count("dropped", "span budget")
            return None
        stack = resolve(snapshot.capture, self._may_read)
        text, was_cut = stack.text(room)
        repeated = ledger.note(snapshot.capture)
        attributes: dict[str, AttributeValue] = {
            CODE_STACKTRACE: text,
            THREAD_ID: snapshot.thread_id,
            THREAD_NAME: cut(snapshot.thread_name, min(self._max_bytes, _LEAST_TEXT)),
            semconv.ELAPSED_MS: snapshot.elapsed_ms,
            semconv.THRESHOLD_MS: snapshot.threshold_ms,
            semconv.SNAPSHOT_INDEX: ledger.snapshots,
            semconv.OBSERVER: snapshot.observer,
            semconv.LATENESS_MS: snapshot.lateness_ms,
            semconv.REPEATED: repeated,
        }
        if snapshot.task_state is not None:
            attributes[semconv.TASK_STATE] = snapshot.task_state
        culprit = stack.culprit()
        if culprit is not None:
            attributes[CODE_FUNCTION_NAME] = cut(culprit.function, min(self._max_bytes, _LEAST_TEXT))
            attributes[CODE_FILE_PATH] = cut(culprit.file, min(self._max_bytes, 2 * _LEAST_TEXT))
            attributes[CODE_LINE_NUMBER] = culprit.line
        if was_cut:
            already = size_of(semconv.STACK_SNAPSHOT_EVENT, attributes)
            left = ledger.left - ledger.reserved - already
            room = left - min(snapshot.remaining, _LOOKAHEAD) * _RESERVE - len(semconv.STACK_FRAMES)
            frames = self._frames(stack, room, repeated)
            if frames:
                attributes[semconv.STACK_FRAMES] = frames
        if snapshot.locals is not None:
            self._add_locals(snapshot.locals, snapshot.remaining, attributes, ledger)
        return attributes

    def _add_locals(
        self, taken: TakenLocals, remaining: int, attributes: dict[str, AttributeValue], ledger: SpanLedger
    ) -> None:
        """Add the variables, within what the stack has left, and what the stacks that are to come will need."""
        from otel_introspect.engine.locals import elements  # loaded already, or there would be none

        already = size_of(semconv.STACK_SNAPSHOT_EVENT, attributes)
        # The later ones have the same beside their text, which may be long paths.
        beside = {key: value for key, value in attributes.items() if key not in (CODE_STACKTRACE, semconv.STACK_FRAMES)}
        envelope = max(size_of(semconv.STACK_SNAPSHOT_EVENT, beside) + len(CODE_STACKTRACE), _ENVELOPE)
        later = min(remaining, _LOOKAHEAD) * (min(_LATER_STACK, self._max_bytes) + envelope)
        room = ledger.left - ledger.reserved - already - later - len(semconv.STACK_LOCALS)
        texts = elements(taken, self._max_bytes, min(room, _MAX_LOCALS))
        if not texts:
            return
        with_locals: dict[str, AttributeValue] = {**attributes, semconv.STACK_LOCALS: texts}
        if self._budget.has_room(size_of(semconv.STACK_SNAPSHOT_EVENT, with_locals)):
            attributes[semconv.STACK_LOCALS] = texts
        else:  # the process has none for them; it may have for the stack
            count("dropped", "locals: no room")

    def _frames(self, stack: StackText, room: int, repeated: int) -> list[str]:
        """The whole stack, a line each, if it fits; of a stack that has been shown before, all of it or nothing."""
        lines = shorts(stack.frames, stack.omitted, self._max_bytes)
        total, kept = 0, 0
        for line in lines:
            total += size_of("", {"": line})
            if total > room:
                break
            kept += 1
        if kept == len(lines):
            return lines
        if repeated > 1 or not kept:
            return []
        note = cut(f"[{len(lines) - kept + 1} outer frames omitted]", self._max_bytes)
        return [*lines[: kept - 1], note]

    def _emit(
        self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int, ledger: SpanLedger
    ) -> bool:
        size = size_of(name, attributes)
        if size > ledger.left - ledger.reserved:
            count("dropped", "span budget")
            return False
        spent = size * self._times + self._extra
        if not self._budget.has_room(spent):
            count("dropped", "process budget")
            return False
        taken = False
        for sink in self._sinks:
            with fail_open(f"emitting to {type(sink).__name__}"):
                taken = sink.emit(span, name, attributes, timestamp) or taken
        if taken:
            ledger.left -= size
            self._budget.spend(spent)
            for copy in self._copies:
                with fail_open(f"emitting to {type(copy).__name__}"):
                    copy.emit(span, name, attributes, timestamp)
        return taken
