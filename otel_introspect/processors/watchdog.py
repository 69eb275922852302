"""The span processor that has entry spans watched."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from sys import modules
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.semconv._incubating.attributes.http_attributes import HTTP_METHOD, HTTP_TARGET
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from opentelemetry.semconv.attributes.url_attributes import URL_PATH
from opentelemetry.trace import get_tracer_provider

from otel_introspect.config import IntrospectConfig
from otel_introspect.engine import handover
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import GREENLETS, here
from otel_introspect.engine.recorder_layout import PARENT_IS_REMOTE, STABLE_NAMES
from otel_introspect.faults import fail_open, failed
from otel_introspect.introspection import Introspection, Recovering

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

_SAMPLED: Final = 1
# As much as has room in a slot of the flight recorder, should all of it be ASCII; it cuts the rest.
_NAME_CHARACTERS: Final = 150
_PATH_CHARACTERS: Final = 260


class _OnStart(Protocol):
    def __call__(self, span: Span, parent_context: Context | None = None) -> None: ...


class _Begin(Protocol):
    def __call__(self, span: Span, key: int, trace_id: int, context: Context | None) -> None: ...


class _WriteDown(Protocol):
    def __call__(self, span: Any, context: Any, parent: Any) -> None: ...  # noqa: ANN401 - the SDK's private types


class _OnEnd(Protocol):
    def __call__(self, span: ReadableSpan) -> None: ...


class WatchdogSpanProcessor(SpanProcessor):
    """Adds stack snapshots to entry spans that stay open past the threshold, while they are still open.

    Both hooks run inside the application's own calls, so all they do is put a span into a table and take it out again.
    An entry span is the first of its trace in this process: it has no parent, or a remote one. Only those that are
    recorded *and* sampled are watched.

    Args:
        introspection: What does the watching; one of its own from the environment's settings if None is given.
    """

    def __init__(self, introspection: Introspection | None = None) -> None:
        self.introspection = Introspection(IntrospectConfig.from_env()) if introspection is None else introspection
        self._bind()

    def _bind(self) -> None:
        # Functions on the instance, as methods cost every span of the application, entry or not, the look-up of self
        # and of what they need in it: child spans pay 0.2 us for us so, 0.35 otherwise.
        hooks: dict[str, object] = {
            "on_start": _make_on_start(self.introspection, _beginner(self.introspection)),
            "on_end": _make_on_end(self.introspection),
            "_on_ending": deque[object](maxlen=0).append,  # does nothing, in C
        }
        vars(self).update(hooks)
        self.introspection.make_recovery = partial(_make_recovery, self.introspection)

    def switch_to(self, introspection: Introspection) -> None:
        """Go on with another configuration: a provider never gives back a processor, so one serves for good."""
        previous, self.introspection = self.introspection, introspection
        self._bind()
        previous.stop()

    def shutdown(self) -> None:
        """Watch nothing more, and give back the thread."""
        with fail_open("shutting down"):
            self.introspection.stop()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is ever waiting: evidence is on its span when it is taken."""
        return True


def _make_recovery(introspection: Introspection) -> Recovering:
    from otel_introspect.processors.recovery import ProviderOutlet, Recovery, records_of

    outlet = ProviderOutlet(lambda: introspection.tracer_provider or get_tracer_provider(), introspection.courier.flush)
    # The directory that nobody has chosen is that of all this user's services, which may send their spans elsewhere.
    is_shared = not introspection.config.recorder.directory
    service = str(introspection.resource().get(SERVICE_NAME, "")) if is_shared else None
    evidence = introspection.config.evidence
    records = records_of(evidence, introspection.logger_provider)
    return Recovery(introspection.recorder_directory, evidence, outlet, service=service, records=records)


# The two hooks read the SDK's private attributes and index its span contexts, which are tuples: its properties would
# double their cost. An SDK without those is served through its public names, more slowly. (1 is the span id, 2 whether
# the context is remote, 3 the trace flags.)


def _make_on_start(introspection: Introspection, begin: _Begin | None) -> _OnStart:
    table = introspection.table.open
    note = handover.current.set if introspection.profiles else None
    introspector = introspection.introspector
    write_down = _make_write_down(introspection)
    # Takes no lock and raises nothing; None where no event loop runs in this thread.
    running_loop = asyncio._get_running_loop  # noqa: SLF001 - documented as meant for those who build on event loops

    def on_start(span: Span, parent_context: Context | None = None) -> None:
        """Put an entry span into the live table. Runs on the thread that starts the span; never raises."""
        try:
            parent = span._parent  # noqa: SLF001 - see above
            if parent is not None and not parent[2]:
                return
            context: Any = span._context  # noqa: SLF001 - see above
            if context[3] & _SAMPLED and introspection.watching:
                shared = running_loop() is not None or GREENLETS in modules
                table[context[1]] = (ref(span), here() if shared else get_ident())
                if note is not None:
                    note(context[1])
                if introspector.parked:
                    introspection.wake()
                if write_down is not None:
                    write_down(span, context, parent)
                if begin is not None:
                    begin(span, context[1], context[0], parent_context)
        except AttributeError:
            _start_by_public_names(introspection, span, parent_context, begin)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("watching a span", error)

    return on_start


def _make_write_down(introspection: Introspection) -> _WriteDown | None:
    """What tells the flight recorder of a span; None if there is no such."""
    recorder = introspection.recorder
    if recorder is None:
        return None
    write = recorder.begin

    def write_down(span: Any, context: Any, parent: Any) -> None:  # noqa: ANN401 - see above
        attributes = span._attributes  # noqa: SLF001 - see above
        get = getattr(attributes, "_dict", attributes).get  # the dictionary itself: its wrapper takes ten times as long
        method, path, flags = get(HTTP_REQUEST_METHOD), get(URL_PATH), STABLE_NAMES
        if method is None:
            method, path, flags = get(HTTP_METHOD, ""), get(HTTP_TARGET, ""), 0
        write(
            context[1],
            context[0],
            0 if parent is None else parent[1],
            span._start_time,  # noqa: SLF001 - see above
            get_ident(),
            span._kind._value_,  # noqa: SLF001 - see above
            flags if parent is None else flags | PARENT_IS_REMOTE,
            f"{span._name[:_NAME_CHARACTERS]}\0{method}\0{_without_query(path)[:_PATH_CHARACTERS]}",  # noqa: SLF001
        )

    return write_down


def _without_query(path: str | None) -> str:
    """The old conventions have the query behind the path, which may hold what is nobody's business."""
    return path.partition("?")[0] if path else ""


def _beginner(introspection: Introspection) -> _Begin | None:
    """What begins profiles with entry spans; None if nothing does."""
    if not introspection.begins_profiles:
        return None
    # Late, as few services have it.
    from otel_introspect.triggers.refusal import Refused
    from otel_introspect.triggers.travel import received

    by_request = "request" in introspection.config.profiler.triggers and bool(introspection.config.profiler.key)

    def begin(span: Span, key: int, trace_id: int, context: Context | None) -> None:
        token = received(context) if by_request else None
        profiler = introspection.profiler
        if token is not None:
            with suppress(Refused):
                introspection.request_trigger.check_travel(token, trace_id)
                profiler.begin_for_entry("request", span, key)
                return
        if profiler.is_chosen(trace_id):
            with suppress(Refused):
                profiler.begin_for_entry("ratio", span, key)

    return begin


def _make_on_end(introspection: Introspection) -> _OnEnd:
    take_out = introspection.table.open.pop
    slow = introspection.table.slow
    discard = introspection.table.discard
    strike_out = None if introspection.recorder is None else introspection.recorder.end

    def on_end(span: ReadableSpan) -> None:
        """Take a span out of the live table. Runs on the thread that ends the span, any thread; never raises."""
        try:
            parent = span._parent  # noqa: SLF001 - see above
            if parent is not None and not parent[2]:
                return
            # A copy of what on_start saw, so that its id is the only link.
            context: Any = span._context  # noqa: SLF001 - see above
            key = context[1]
            # First, as closing a slow one waits and may be interrupted: what has ended must not come back as recovered.
            if strike_out is not None:
                strike_out(key)
            take_out(key, None)
            if slow and key in slow:
                discard(key)
        except AttributeError:
            with fail_open("unwatching a span"):
                if strike_out is not None:
                    strike_out(span.context.span_id)
                discard(span.context.span_id)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("unwatching a span", error)

    return on_end


def _start_by_public_names(
    introspection: Introspection, span: Span, parent_context: Context | None, begin: _Begin | None
) -> None:
    with fail_open("watching a span"):
        context = span.get_span_context()
        is_entry = span.parent is None or span.parent.is_remote
        if is_entry and context.trace_flags.sampled and introspection.watching:
            introspection.table.add(context.span_id, ref(span), here())
            if introspection.introspector.parked:
                introspection.wake()
            if introspection.profiles:
                handover.current.set(context.span_id)
            if begin is not None:
                begin(span, context.span_id, context.trace_id, parent_context)
