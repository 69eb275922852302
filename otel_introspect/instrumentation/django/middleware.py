"""The middleware just inside OpenTelemetry's: knows where a request runs, closes its evidence before its span ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from otel_introspect.faults import fail_open, failed
from otel_introspect.instrumentation.django import interruption, profile_request
from otel_introspect.instrumentation.django.watched_request import WatchedRequest, current
from otel_introspect.instrumentation.requested_profile import RequestedProfile
from otel_introspect.introspection import Introspection, active

Handler = Callable[[HttpRequest], Any]


def wsgi_middleware(get_response: Handler) -> Handler:
    """Make the middleware for WSGI, where a request stays on the thread on which its span was started.

    So there is nothing to be said about a fast request, and next to nothing is done for one.
    """
    limited = interruption.on_one_thread(get_response)

    def introspect(request: HttpRequest) -> Any:  # noqa: ANN401 - a response, or what a broken middleware returns
        introspection = active()
        if introspection is not None and introspection.config.evidence.excluded_urls:
            _open(request)
        limit = _limit_ms(introspection)
        profile = profile_request.requested(request, introspection)
        try:
            response = limited(request, limit) if limit else get_response(request)
        except BaseException as error:
            profile_request.leave(profile, None)
            _abort(request, error)
            raise
        profile_request.leave(profile, response)
        if introspection is not None and (introspection.table.slow or getattr(response, "streaming", False)):
            watched = _open(request)
            if watched is not None:
                _leave(watched, response, profile, under_asgi=False)
        return response

    introspect.process_view = profile_request.process_view  # type: ignore[attr-defined]
    introspect.process_exception = interruption.process_exception  # type: ignore[attr-defined]
    return introspect


def asgi_middleware(get_response: Handler) -> Handler:
    """Make the middleware for ASGI, in the mode of what is inside it."""
    introspect = _in_task(get_response) if iscoroutinefunction(get_response) else _on_thread(get_response)
    introspect.process_view = profile_request.process_view_in_task  # type: ignore[attr-defined]
    introspect.process_exception = interruption.process_exception  # type: ignore[attr-defined]
    return introspect


asgi_middleware.async_capable = True  # type: ignore[attr-defined]


def _on_thread(get_response: Handler) -> Handler:
    limited = interruption.around_tasks(get_response)

    def introspect(request: HttpRequest) -> Any:  # noqa: ANN401 - as above
        introspection = active()
        limit = _limit_ms(introspection)
        watched = _open(request)
        _enter(watched)
        profile = profile_request.requested(request, introspection)
        if watched is None and profile is None:
            return limited(request, limit) if limit else get_response(request)
        token = current.set(watched)
        try:
            response = limited(request, limit) if limit else get_response(request)
        except BaseException:
            profile_request.leave(profile, None)
            _leave(watched, None, None, under_asgi=True)
            raise
        finally:
            current.reset(token)
        profile_request.leave(profile, response)
        _leave(watched, response, profile, under_asgi=True)
        return response

    return introspect


def _in_task(get_response: Callable[[HttpRequest], Awaitable[Any]]) -> Handler:
    limited = interruption.in_task(get_response)

    async def introspect(request: HttpRequest) -> Any:  # noqa: ANN401 - as above
        introspection = active()
        limit = _limit_ms(introspection)
        watched = _open(request)
        _enter(watched)
        profile = profile_request.requested(request, introspection)
        if watched is None and profile is None:
            return await (limited(request, limit) if limit else get_response(request))
        token = current.set(watched)
        try:
            response = await (limited(request, limit) if limit else get_response(request))
        except BaseException:
            profile_request.leave(profile, None)
            _leave(watched, None, None, under_asgi=True)
            raise
        finally:
            current.reset(token)
        profile_request.leave(profile, response)
        _leave(watched, response, profile, under_asgi=True)
        return response

    return introspect


def _limit_ms(introspection: Introspection | None) -> int:
    if introspection is None:
        return 0
    config = introspection.config.timeout
    return 0 if config.disabled else config.timeout


# What follows runs on the request's thread or task, and none of it may raise into the application.


def _open(request: HttpRequest) -> WatchedRequest | None:
    try:
        watched = WatchedRequest.of(request)
        return None if watched is None or watched.is_excluded(request) else watched
    except Exception as error:  # noqa: BLE001 - see above
        failed("following a request", error)
        return None


def _enter(watched: WatchedRequest | None) -> None:
    if watched is None:
        return
    with fail_open("following a request to where it runs"):
        watched.enter()


def _leave(
    watched: WatchedRequest | None, response: object, profile: RequestedProfile | None, *, under_asgi: bool
) -> None:
    if watched is None:
        return
    with fail_open("closing a request's evidence"):
        watched.close()
    with fail_open("watching a streamed body"):
        if watched.streams(response):
            # Late, as most services never stream.
            from otel_introspect.instrumentation.django.streaming import watch_body

            watch_body(response, watched, under_asgi=under_asgi, profile=profile)


def _abort(request: HttpRequest, error: BaseException) -> None:
    with fail_open("ending the span of an aborted request"):
        # Late, as most requests are not aborted, and OpenTelemetry's middleware may not be there at all.
        from otel_introspect.instrumentation.django.span_guard import end_span

        end_span(request, error)
