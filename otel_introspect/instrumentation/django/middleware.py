"""The middleware just inside OpenTelemetry's: knows where a request runs, closes its evidence before its span ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from otel_introspect.faults import failed
from otel_introspect.instrumentation.django.watched_request import WatchedRequest, current

Handler = Callable[[HttpRequest], Any]


def introspect_middleware(get_response: Handler) -> Handler:
    """Make the middleware, in the mode of what is inside it; if that can't be done, there is none."""
    try:
        make = _asynchronous if iscoroutinefunction(get_response) else _synchronous
        return make(get_response)
    except Exception as error:  # noqa: BLE001 - it would keep the application from starting
        failed("making the middleware", error)
        return get_response


introspect_middleware.sync_capable = True  # type: ignore[attr-defined]
introspect_middleware.async_capable = True  # type: ignore[attr-defined]


def _open(request: HttpRequest) -> WatchedRequest | None:
    try:
        return WatchedRequest.of(request)
    except Exception as error:  # noqa: BLE001 - it would reach the application
        failed("following a request", error)
        return None


def _close(watched: WatchedRequest) -> None:
    try:
        watched.close()
    except Exception as error:  # noqa: BLE001 - it would reach the application
        failed("closing a request's evidence", error)


def _watch_body(response: object, watched: WatchedRequest, *, in_event_loop: bool) -> None:
    try:
        if watched.streams(response):
            # Late, as most services never stream.
            from otel_introspect.instrumentation.django.streaming import watch_body

            watch_body(response, watched, in_event_loop=in_event_loop)
    except Exception as error:  # noqa: BLE001 - it would reach the application
        failed("watching a streamed body", error)


def _synchronous(get_response: Handler) -> Handler:
    def introspect(request: HttpRequest) -> Any:  # noqa: ANN401 - a response, or what a broken middleware returns
        watched = _open(request)
        if watched is None:
            return get_response(request)
        token = current.set(watched)
        try:
            response = get_response(request)
        finally:
            current.reset(token)
            _close(watched)
        _watch_body(response, watched, in_event_loop=False)
        return response

    return introspect


def _asynchronous(get_response: Callable[[HttpRequest], Awaitable[Any]]) -> Handler:
    async def introspect(request: HttpRequest) -> Any:  # noqa: ANN401 - as above
        watched = _open(request)
        if watched is None:
            return await get_response(request)
        watched.follow_task()
        token = current.set(watched)
        try:
            response = await get_response(request)
        finally:
            current.reset(token)
            _close(watched)
        _watch_body(response, watched, in_event_loop=True)
        return response

    return introspect
