"""Recovery: the requests that were running in a process that is dead become finished spans all the same.

What is wanted: a worker is killed, and seconds later the traces of its requests are in the backend: each request's own
span, with the ids that its children already refer to, and with all the evidence that there was.

What does not work: a tracer, which makes ids and a resource of its own. An exporter of our own, as the user's is set up
in ways that only the user's code knows.

So: each span in a dead process's flight record is made into what the SDK makes of one that has ended, and handed to the
span processors that the living process has, with the resource of the dead one. It ended at the last sign of life: a
heartbeat, a stack that was seen, evidence that was added. Nothing of this runs on a request's path: it is for a thread
that may block.

Where the stack that was seen last is younger than the last snapshot, it becomes one more; so does what faulthandler had
written, for the requests that it is certainly about.

What can still fail: whether an exporter has delivered what it was given, no span processor says; so the files are
removed when the spans have been handed on and flushed. A tracestate is not written down, and so is lost.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.code_attributes import CODE_STACKTRACE
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from otel_introspect import semconv
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.dead_man import Dump, Frame
from otel_introspect.engine.faulthandler_observer import is_same_way
from otel_introspect.engine.recorder_claims import Claim, abandoned, claim, needs_tidying, tidy
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory
from otel_introspect.engine.recorder_layout import FILE_SIZE
from otel_introspect.engine.recorder_reading import FlightRecord, OpenSpan, UnreadableRecord
from otel_introspect.engine.stacks import described
from otel_introspect.engine.watchdog import Snapshot
from otel_introspect.faults import count, fail_open, failed, tell_once
from otel_introspect.processors.recovered_records import RecoveredRecords
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.sinks.budget import ProcessBudget
from otel_introspect.sinks.reporter import SpanReporter
from otel_introspect.tally import tally

WHY: Final = "process died while the request was running"
"""What the status of a recovered span says."""

_MILLISECOND: Final = 1_000_000
_DAY: Final = 24 * 3600 * 1_000_000_000
# So many spans are handed on before they are flushed: an exporter's queue holds 2048 and drops the rest, and a batch of
# more than 4 MiB is lost whole by OTLP over gRPC.
_PORTION: Final = 64
_MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
# Files that are known to be unreadable, to say so once only and not to be looked at again and again.
_MAX_REFUSED: Final = 10_000


class Outlet(Protocol):
    """Where recovered spans go."""

    def is_open(self) -> bool:
        """Whether there is anybody who would take one."""
        ...

    def send(self, spans: Sequence[ReadableSpan]) -> bool:
        """Hand *spans* on and see them off; False if they were not taken, so that another attempt is to be made."""
        ...


class RecoveredProcess(NamedTuple):
    """What was found of a dead process.

    Args:
        pid: Of it.
        resource: What it was, as the attributes of a resource.
        spans: Those that were open.
        sent: Whether they were handed on; if not, the file is still there.
    """

    pid: int
    resource: Mapping[str, Any]
    spans: tuple[ReadableSpan, ...]
    sent: bool


class Recovered(NamedTuple):
    """What one round has come to.

    Args:
        processes: The dead ones of which there was anything to send.
        refused: The files that can't be read or are not our own, and why; each is named once only.
    """

    processes: tuple[RecoveredProcess, ...] = ()
    refused: tuple[tuple[Path, str], ...] = ()


class Recovery:
    """Sends off what dead processes have left in a directory.

    Args:
        directory: The flight recorder's.
        evidence: How much of it there may be on a span.
        outlet: Takes the spans.
        clock: What time it is.
        service: Only what was a process of this ``service.name``; all if None is given.
        records: Takes the evidence as log records; it is on the spans if None is given.
    """

    def __init__(  # noqa: PLR0913 - settings, most by their names
        self,
        directory: RecorderDirectory,
        evidence: EvidenceConfig,
        outlet: Outlet,
        clock: Clock | None = None,
        *,
        service: str | None = None,
        records: RecoveredRecords | None = None,
    ) -> None:
        self._records = records
        self._service = service
        self._directory = directory
        self._evidence = evidence
        self._outlet = outlet
        self._clock: Clock = SystemClock() if clock is None else clock
        self._refused: dict[str, None] = {}

    def is_needed(self) -> bool:
        """Whether there is anything to do: a look at the directory, and whether each file in it is locked."""
        try:
            if self._outlet.is_open() and next(self._abandoned(), None) is not None:
                return True
            return needs_tidying(self._directory)
        except (OSError, DirectoryRefused):
            return False  # who wants to write there is told

    def run(self) -> Recovered:
        """Recover all that there is. Blocks; any thread that may, and any number of processes at once. Never raises."""
        processes: list[RecoveredProcess] = []
        refused: list[tuple[Path, str]] = []
        with fail_open("recovering what dead processes have left"):
            try:
                if self._outlet.is_open():
                    for path in list(self._abandoned()):
                        self._recover(path, processes, refused)
                tidy(self._directory)
            except (OSError, DirectoryRefused) as error:  # the directory is gone, or not private any more
                count("refused", "recovery: the directory")
                tell_once(logging.DEBUG, "otel_introspect recovers nothing from %s: %s.", self._directory.path, error)
        return Recovered(tuple(processes), tuple(refused))

    def _abandoned(self) -> Iterator[Path]:
        return (path for path in abandoned(self._directory) if path.name not in self._refused)

    def _recover(self, path: Path, processes: list[RecoveredProcess], refused: list[tuple[Path, str]]) -> None:
        claimed: Claim | None = None
        try:
            claimed = claim(path)
            if claimed is None:
                return
            process = self._send(claimed)
            if process is not None:
                processes.append(process)
        except (UnreadableRecord, OSError) as error:
            why = str(error) if isinstance(error, UnreadableRecord) else error.strerror or str(error)
            refused.append((path, why))
            self._refuse(path if claimed is None else claimed.path, why)
        except Exception as error:  # noqa: BLE001 - other files are still to be recovered
            failed("recovering a dead process", error)
            self._remember(path if claimed is None else claimed.path)
        finally:
            if claimed is not None:
                claimed.give_up()

    def _refuse(self, path: Path, why: str) -> None:
        self._remember(path)
        count("refused", "recovery: a file")
        tell_once(logging.WARNING, "otel_introspect recovers nothing from %s: %s.", path, why)

    def _remember(self, path: Path) -> None:
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.clear()
        self._refused[path.name] = None

    def _send(self, claimed: Claim) -> RecoveredProcess | None:
        record = claimed.record()
        if self._service is not None and record.resource.get(SERVICE_NAME) != self._service:
            self._remember(claimed.path)  # another service's, which may send its spans elsewhere
            return None
        dump = None
        if record.spans:
            with fail_open("reading what faulthandler has written"):
                dump = claimed.dump()
        spans = recovered_spans(record, dump, self._evidence, self._clock)
        portions = iter(spans)
        while portion := tuple(islice(portions, _PORTION)):
            to_send = portion if self._records is None else self._records.spans_to_send(portion)
            if not self._outlet.send(to_send):
                return RecoveredProcess(record.pid, record.resource, spans, sent=False)
            if self._records is not None:
                self._records.send(portion)
            tally("recovered", number=len(portion))
        claimed.settle()
        return RecoveredProcess(record.pid, record.resource, spans, sent=True) if spans else None


class ProviderOutlet:
    """The span processors of a tracer provider, ours apart.

    Args:
        provider: Returns the tracer provider.
        flush: Has it export what is finished, and waits for that a while.
    """

    def __init__(self, provider: Callable[[], Any], flush: Callable[[], object]) -> None:
        self._provider = provider
        self._flush = flush

    def is_open(self) -> bool:
        """See ``Outlet``."""
        return any(not _is_shut_down(each) for each in processors_of(self._provider()))

    def send(self, spans: Sequence[ReadableSpan]) -> bool:
        """See ``Outlet``; False if the provider is shut down, as then they are lost."""
        processors = [each for each in processors_of(self._provider()) if not _is_shut_down(each)]
        if not processors:
            return False
        for span in spans:
            for each in processors:
                with fail_open(f"handing a recovered span to {type(each).__name__}"):
                    each.on_end(span)
        # What had been taken before it was shut down, that sends; what came after was dropped.
        taken = any(not _is_shut_down(each) for each in processors)
        with fail_open("flushing recovered spans"):
            self._flush()
        return taken


class ExportersOutlet:
    """The exporters of a tracer provider, straight: they say whether they have delivered what they were given.

    Only for a process in which nobody else uses them at the same time.

    Args:
        provider: The tracer provider.
    """

    def __init__(self, provider: Any) -> None:  # noqa: ANN401 - told by what it has
        self.exporters: Final[tuple[SpanExporter, ...]] = tuple(
            exporter
            for exporter in (getattr(each, "span_exporter", None) for each in processors_of(provider))
            if exporter is not None
        )

    def is_open(self) -> bool:
        """See ``Outlet``."""
        return bool(self.exporters)

    def send(self, spans: Sequence[ReadableSpan]) -> bool:
        """See ``Outlet``; False if none of them has delivered the spans."""
        delivered = False
        for exporter in self.exporters:
            with fail_open(f"exporting with {type(exporter).__name__}"):
                delivered = exporter.export(spans) is SpanExportResult.SUCCESS or delivered
        return delivered


def processors_of(provider: Any) -> tuple[SpanProcessor, ...]:  # noqa: ANN401 - the API's own provider has none
    """The span processors that *provider* has, without ours."""
    active = getattr(provider, "_active_span_processor", None)
    if active is None or getattr(provider, "_disabled", False):  # OTEL_SDK_DISABLED
        return ()
    found = getattr(active, "_span_processors", (active,))
    return tuple(each for each in found if not isinstance(each, WatchdogSpanProcessor))


def _is_shut_down(processor: SpanProcessor) -> bool:
    """Whether it drops what it is given, as far as that can be told."""
    # Each version of the SDK has it elsewhere; an old one's simple processor does not know it, but its exporter does.
    knowing = (processor, getattr(processor, "_batch_processor", None), getattr(processor, "span_exporter", None))
    return any(getattr(each, name, False) is True for each in knowing for name in ("_shutdown", "done", "_stopped"))


def records_of(evidence: EvidenceConfig, provider: Callable[[], Any]) -> RecoveredRecords | None:
    """What makes log records of recovered evidence; None if there are to be none.

    Args:
        evidence: Says so.
        provider: Returns the logger provider.
    """
    if "log" not in evidence.events:
        return None
    return RecoveredRecords(provider, instead="span" not in evidence.events and not evidence.events_bridge)


def recovered_spans(
    record: FlightRecord, dump: Dump | None, evidence: EvidenceConfig, clock: Clock
) -> tuple[ReadableSpan, ...]:
    """What *record* says as finished spans."""
    now = clock.wall()
    # All of it comes from one file, so that this is a bound as well; and none of it is to be dropped for the others.
    reporter = SpanReporter(evidence, budget=ProcessBudget(clock, 2 * FILE_SIZE), may_read=_is_source)
    resource = Resource(_frozen(record.resource))
    dumps = {} if dump is None else dict(_shown_in(dump, record))
    spans = []
    for span in record.spans:
        dumped = None if dump is None else dump.taken
        try:
            ended = _Remains(span, record, dumped).ended(reporter, resource, dumps.get(span.span_id), now)
        except Exception as error:  # noqa: BLE001 - that it was running says more than nothing
            failed("recovering a span's evidence", error)
            bare = span._replace(events=(), stack=None)
            ended = _Remains(bare, record, None).ended(reporter, resource, None, now)
        spans.append(ended)
    return tuple(spans)


class _Remains:
    """A span of a dead process, as the reporter knows a span: something to write to.

    Args:
        span: What the record says of it.
        record: The process's.
        dumped: When faulthandler wrote, if it did.
    """

    def __init__(self, span: OpenSpan, record: FlightRecord, dumped: int | None) -> None:
        self._span = span
        self._record = record
        self._dumped = dumped
        self.attributes: dict[str, AttributeValue] = {**_frozen(span.attributes), semconv.RECOVERED: True}
        self.events: list[Event] = []

    def is_recording(self) -> bool:
        return True

    def add_event(self, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> None:
        self.events.append(Event(name, _frozen(attributes), timestamp))

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self.attributes[key] = value

    def ended(
        self, reporter: SpanReporter, resource: Resource, dumped: Sequence[Frame] | None, now: int
    ) -> ReadableSpan:
        """The finished span."""
        span = self._span
        # The clock may have been set back; a start that is further ahead is none.
        start = span.start if span.start < now + _DAY else now
        end = self._last_sign(start, now)
        reporter.restore(self, span.events)
        threshold = self._threshold()
        if self._snapshots() or (threshold and end - start >= threshold * _MILLISECOND):
            reporter.mark_slow(self)
        if threshold and end - start >= threshold * _MILLISECOND:
            self._add_last_stacks(reporter, dumped, start=start, end=end)
        trace_flags = TraceFlags(TraceFlags.SAMPLED)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(span.trace_id, span.parent_id, span.parent_is_remote, trace_flags)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=trace_flags),
            parent=parent,
            resource=resource,
            attributes=self.attributes,
            events=sorted(self.events, key=lambda event: event.timestamp),
            kind=SpanKind(span.kind),
            status=Status(StatusCode.ERROR, WHY),
            start_time=start,
            end_time=end,
            instrumentation_scope=InstrumentationScope("otel_introspect"),
        )

    def _last_sign(self, start: int, now: int) -> int:
        signs = [self._record.beat or 0, *(event.timestamp for event in self._span.events)]
        if self._span.stack is not None:
            signs.append(self._span.stack.taken)
        if self._dumped is not None:
            signs.append(self._dumped)
        return max([start, *(each for each in signs if each <= now)])

    def _threshold(self) -> int:
        known = (event.attributes.get(semconv.THRESHOLD_MS) for event in self._span.events)
        return self._record.threshold_ms or next((each for each in known if isinstance(each, int)), 0)

    def _snapshots(self) -> list[Event]:
        return [event for event in self.events if event.name == semconv.STACK_SNAPSHOT_EVENT]

    def _add_last_stacks(self, reporter: SpanReporter, dumped: Sequence[Frame] | None, *, start: int, end: int) -> None:
        latest = max((event.timestamp for event in self._snapshots()), default=0)
        stack = self._span.stack
        if stack is not None and stack.frames and latest < stack.taken <= end:
            frames = [(frame.file, frame.line, frame.function) for frame in stack.frames]
            last = self._snapshot(frames, stack.taken, start)
            self._report(
                reporter,
                last._replace(
                    thread_id=stack.thread_id or self._span.thread_id,
                    observer=_OBSERVERS.get(stack.observer, "thread"),
                    task_state=_TASK_STATES.get(stack.task_state),
                ),
            )
            latest = stack.taken
        if dumped and self._dumped is not None and latest < self._dumped <= end:
            self._report(reporter, self._snapshot(dumped, self._dumped, start)._replace(observer="faulthandler"))

    def _snapshot(self, frames: Iterable[Frame], taken: int, start: int) -> Snapshot:
        span = self._span
        return Snapshot(
            taken=taken,
            capture=described(frames),
            thread_id=span.thread_id if span.stack is None else span.stack.thread_id or span.thread_id,
            thread_name="",
            elapsed_ms=max(taken - start, 0) // _MILLISECOND,
            threshold_ms=self._threshold(),
            observer="thread",
            lateness_ms=0,
            remaining=0,
        )

    def _report(self, reporter: SpanReporter, snapshot: Snapshot) -> None:
        before = self._snapshots()
        if not reporter.report(self, snapshot) or not before:
            return
        earlier, added = before[-1].attributes or {}, self.events[-1]
        attributes = dict(added.attributes or {})
        # The reporter does not know what the dead process's has counted.
        repeated = earlier.get(semconv.REPEATED)
        if earlier.get(CODE_STACKTRACE) == attributes.get(CODE_STACKTRACE) and isinstance(repeated, int):
            self.events[-1] = Event(added.name, {**attributes, semconv.REPEATED: repeated + 1}, added.timestamp)


def _frozen(attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """With tuples for lists, as the SDK has them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}


_OBSERVERS: Final[Mapping[str, Any]] = {each: each for each in ("thread", "signal", "faulthandler")}
_TASK_STATES: Final[Mapping[str | None, Any]] = {each: each for each in ("running", "awaiting", "switched_out")}


def _shown_in(dump: Dump, record: FlightRecord) -> Iterator[tuple[int, list[Frame]]]:
    """The spans that *dump* is certainly about, and their frames."""
    homes: dict[int, list[OpenSpan]] = {}
    for span in record.spans:
        if span.start <= dump.taken:
            home = span.thread_id if span.stack is None else span.stack.thread_id or span.thread_id
            homes.setdefault(home, []).append(span)
    for home, spans in homes.items():
        frames = dump.stacks.get(home)
        for span in spans:
            if frames and _is_about(span, frames, is_alone=len(spans) == 1):
                yield span.span_id, frames


def _is_about(span: OpenSpan, frames: list[Frame], *, is_alone: bool) -> bool:
    """Whether the *frames* of its thread are a span's own: on an event loop's thread they may be another one's."""
    if span.stack is None:
        return is_alone
    if span.stack.task_state is None:
        return True
    # Bare names, as faulthandler writes them.
    seen = [(each.file, each.line, each.function.rpartition(".")[2]) for each in span.stack.frames]
    return span.stack.task_state == "running" and is_same_way(frames, seen)


def _is_source(file: str) -> bool:
    """Whether it may be read for what stands on a line: the name comes from a file that anything may be in."""
    if not file.endswith(".py"):
        return False
    try:
        status = os.stat(file)  # noqa: PTH116 - as the engine does it
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_SOURCE_BYTES
