"""Makes a response of a request that is interrupted, after cleaning up what that may have left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from otel_introspect.errors import DeadlineExceeded, RequestInterrupted
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.django.connections import drop_connections, was_cut
from otel_introspect.instrumentation.django.request_deadline import RequestDeadline, current
from otel_introspect.introspection import active
from otel_introspect.setting import names_template

Handler = Callable[[HttpRequest], Any]
Limited = Callable[[HttpRequest, int], Any]
"""Answers a request, within so many milliseconds."""

# How long the thread that has the database connections may take to be free again, before we answer without it.
_PATIENCE: Final = 1.0


def on_one_thread(get_response: Handler) -> Limited:
    """*get_response* with a deadline, for requests that run on the thread that calls it."""

    def respond(request: HttpRequest, limit_ms: int) -> Any:  # noqa: ANN401 - or what a broken middleware returns
        deadline = RequestDeadline(limit_ms)
        token = current.set(deadline)
        try:
            with deadline.block:
                return get_response(request)
        except RequestInterrupted:
            if not deadline.expired:
                raise
            return answer(request)
        finally:
            current.reset(token)

    return respond


def in_task(get_response: Callable[[HttpRequest], Awaitable[Any]]) -> Limited:
    """*get_response* with a deadline, for requests that run in the task that calls it."""

    async def respond(request: HttpRequest, limit_ms: int) -> Any:  # noqa: ANN401 - as above
        deadline = RequestDeadline(limit_ms)
        token = current.set(deadline)
        try:
            with deadline.runs_in(asyncio.current_task()):
                return await get_response(request)
        except RequestInterrupted:
            if not deadline.expired:
                raise
            return await _answer_in_task(request)
        finally:
            current.reset(token)

    return respond


def around_tasks(get_response: Handler) -> Limited:
    """*get_response* with a deadline, for requests in whose tasks the thread that calls it takes part.

    While it waits for a task it is in asgiref's code and must not be interrupted: so the deadline holds in the view.
    """

    def respond(request: HttpRequest, limit_ms: int) -> Any:  # noqa: ANN401 - as above
        deadline = RequestDeadline(limit_ms)
        token = current.set(deadline)
        try:
            return get_response(request)
        except RequestInterrupted:
            if not deadline.expired:
                raise
            return answer(request)
        finally:
            current.reset(token)

    return respond


async def _answer_in_task(request: HttpRequest) -> HttpResponseBase:
    # Database connections belong to the thread that does this request's synchronous parts. What runs there may not let
    # itself be interrupted, and then it will drop them when that is over.
    answering = asyncio.ensure_future(sync_to_async(answer)(request))
    await asyncio.wait([answering], timeout=_PATIENCE)
    return answering.result() if answering.done() else plain()


def process_exception(request: HttpRequest, exception: BaseException) -> HttpResponseBase | None:
    """Make the response of a view that its own ``timeout`` has interrupted, or of one whose query has been cut.

    Django calls this with what a view raises.
    """
    deadline = current.get()
    if isinstance(exception, DeadlineExceeded):
        deadline.lift()
    elif not (was_cut(exception) and monotonic() > deadline.due):
        return None
    return answer(request)


def answer(request: HttpRequest) -> HttpResponseBase:
    """Clean up after an interruption, and make the response."""
    current.get().due = inf  # who answers may ask the database, too
    with fail_open("closing the database connections of an interrupted request"):
        drop_connections()
    introspection = active()
    path = introspection.config.timeout.view if introspection is not None else ""
    if path:
        with fail_open("answering an interrupted request as TIMEOUT_VIEW says"):
            return _by_template(path, request) if names_template(path) else _by_view(path, request)
    return plain()


def plain() -> HttpResponse:
    """What is answered if the user has not said how."""
    return HttpResponse("The request took too long.\n", status=503, content_type="text/plain; charset=utf-8")


def _by_template(name: str, request: HttpRequest) -> HttpResponse:
    # Late, as few services ever need it.
    from django.template.loader import render_to_string

    return HttpResponse(render_to_string(name, {"request": request}, request), status=503)


def _by_view(path: str, request: HttpRequest) -> HttpResponseBase:
    view: Handler = import_string(path.replace(":", "."))
    response = async_to_sync(view)(request) if iscoroutinefunction(view) else view(request)
    if not isinstance(response, HttpResponseBase):
        msg = f"{path} has returned no response but {type(response).__name__}"
        raise TypeError(msg)
    if getattr(response, "is_rendered", True) is False:
        response.render()  # type: ignore[attr-defined]  # a template response
    return response
