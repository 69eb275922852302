"""Streamed bodies: watched until they are exhausted or closed, their evidence on a span that only the slow ones get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from time import time_ns
from types import FrameType
from typing import Any, Final, Protocol
from weakref import ref

from opentelemetry.context import Context
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_ROUTE
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from otel_introspect.engine.live_table import LiveTable, Watch
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.places import Place, Stack, TaskPlace, ThreadPlace
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.django.watched_request import WatchedRequest
from otel_introspect.instrumentation.requested_profile import RequestedProfile


class BodySpan:
    """Stands for the span of a body until there is evidence to put on one: a fast body leaves no span.

    The span is a child of the request's, which has ended by then, and starts when the body did.

    Args:
        request_span: The request's span.
        tracer: Makes the span.
    """

    def __init__(self, request_span: Span, tracer: Tracer) -> None:
        self.start_time: Final = time_ns()
        self._request_context: Final = request_span.get_span_context()
        self._name: Final = f"{getattr(request_span, 'name', 'request')} body"
        self._route: Final = (getattr(request_span, "attributes", None) or {}).get(HTTP_ROUTE)
        self._tracer: Final = tracer
        self._span: Span | None = None
        self._watch: Watch | None = None
        self._ended = False

    def _real(self) -> Span:
        if self._span is None:
            self._span = self._tracer.start_span(
                self._name,
                context=set_span_in_context(NonRecordingSpan(self._request_context), Context()),
                kind=SpanKind.INTERNAL,
                start_time=self.start_time,
                attributes={HTTP_ROUTE: self._route} if self._route else None,
            )
        return self._span

    def evidence_span(self) -> Span:
        """The span itself, for what refers to it by its ids."""
        return self._real()

    def is_recording(self) -> bool:
        """Whether evidence may still be added; asking makes no span of it."""
        return not self._ended and (self._span is None or self._span.is_recording())

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """As of a span."""
        self._real().set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue], timestamp: int) -> None:
        """As of a span."""
        self._real().add_event(name, attributes, timestamp)

    def close_before_end(self, watch: Watch) -> None:
        """Have *watch* closed before the span ends."""
        self._watch = watch

    def end(self, error: BaseException | None = None) -> None:
        """End the span if there is one; a second time does nothing."""
        if self._ended:
            return
        if self._watch is not None:
            self._watch.close()
        self._ended = True
        if self._span is not None:
            if error is not None:
                self._span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                self._span.set_status(Status(StatusCode.ERROR, f"{type(error).__qualname__}: {error}"))
            self._span.end()


class _Body(Protocol):
    """What ends with a body."""

    def end(self, error: BaseException | None = None) -> None: ...


class _OwnBody:
    """A body in the live table. It keeps the span that stands for it; the table only refers to it."""

    def __init__(self, table: LiveTable, span: BodySpan, place: Place) -> None:
        self.key: Final = object()
        self._table = table
        self._span = span
        table.add(self.key, ref(span), place)

    def end(self, error: BaseException | None = None) -> None:
        with fail_open("ending a body's evidence"):
            self._table.discard(self.key)
            self._span.end(error)


class _ServersBody:
    """A body within the span of the server's own instrumentation, which goes on until the body has been sent."""

    def __init__(self, request: WatchedRequest, place: _MovingPlace) -> None:
        self._request = request
        self._before = request.relocate(place)
        place.otherwise = ThreadPlace(self._before) if isinstance(self._before, int) else self._before

    def end(self, error: BaseException | None = None) -> None:  # noqa: ARG002 - the server's instrumentation sees it, too
        with fail_open("ending a body's evidence"):
            before, self._before = self._before, None
            if before is not None:
                self._request.relocate(before)


class _MovingPlace:
    """Where the body is being produced at the moment; while it is not, where else the span runs, if anywhere."""

    __slots__ = ("otherwise", "place")

    def __init__(self, place: Place | None = None) -> None:
        self.place = place
        self.otherwise: Place | None = None

    @property
    def thread_id(self) -> int | None:
        place = self.place or self.otherwise
        return None if place is None else place.thread_id

    def stack(self, frames: Mapping[int, FrameType]) -> Stack | None:
        place = self.place or self.otherwise
        return None if place is None else place.stack(frames)


class WatchedBody:
    """Iterates over a body, and says on which thread.

    Under WSGI that thread does nothing else until the body is closed, so it is shown between two chunks too, when it
    sends to a slow client. Under ASGI it is borrowed for each chunk, and may work for another request between two.

    Args:
        chunks: The body.
        body: What is to be ended with it.
        place: Told where the body is.
        borrowed: Whether the thread is borrowed.
    """

    def __init__(self, chunks: Iterator[Any], body: _Body, place: _MovingPlace, *, borrowed: bool) -> None:
        self._chunks = chunks
        self._body = body
        self._place = place
        self._borrowed = borrowed

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - whatever the view streams
        self._place.place = ThreadPlace(get_ident())
        try:
            return next(self._chunks)
        except StopIteration:
            self._body.end()
            raise
        except BaseException as error:
            self._body.end(error)
            raise
        finally:
            if self._borrowed:
                self._place.place = None

    def close(self) -> None:
        """Called by the server when it is done with the response; the body's own ``close`` is Django's to call."""
        self._body.end()


class WatchedAsyncBody:
    """Iterates over an asynchronous body, and says in which task."""

    def __init__(self, chunks: AsyncIterator[Any], body: _Body, place: _MovingPlace) -> None:
        self._chunks = chunks
        self._body = body
        self._place = place

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the view streams
        task = asyncio.current_task()
        if task is not None:
            self._place.place = TaskPlace(task, get_ident())
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            self._body.end()
            raise
        except BaseException as error:
            self._body.end(error)
            raise

    def close(self) -> None:
        """See ``WatchedBody``."""
        self._body.end()


def watch_body(
    response: Any,  # noqa: ANN401 - whatever streams
    request: WatchedRequest,
    *,
    under_asgi: bool,
    profile: RequestedProfile | None = None,
) -> None:
    """Have the body of *response* watched from now on; called where the response has just been made.

    Args:
        response: What Django is about to stream.
        request: Of which it is the response.
        under_asgi: Whether it is streamed by a task.
        profile: What the request has asked for; has the body profiled, too.
    """
    place = _MovingPlace(None if under_asgi else ThreadPlace(get_ident()))
    body: _Body
    if request.owns:
        introspection = request.introspection
        span = BodySpan(request.span, introspection.tracer())
        body = _OwnBody(introspection.table, span, place)
        if profile is not None:
            profile.go_on(span, body.key)
    else:
        body = _ServersBody(request, place)
    content: Any = response.streaming_content
    if getattr(response, "is_async", False):
        response.streaming_content = WatchedAsyncBody(content.__aiter__(), body, place)
    elif not under_asgi and getattr(response, "file_to_stream", None) is not None:
        # A server may send the file by itself, which setting the content would prevent; so only its end is known.
        response._resource_closers.append(body.end)  # noqa: SLF001 - Django runs these when the response is closed
    else:
        response.streaming_content = WatchedBody(iter(content), body, place, borrowed=under_asgi)
