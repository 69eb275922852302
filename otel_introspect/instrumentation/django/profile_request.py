"""Profiles of Django's requests that ask for one: signed ones, a developer's, and those whom the application admits.

The view sees neither our parameter nor our header, whether its request is profiled or not, so that the page is the
same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from asgiref.sync import sync_to_async
from django import conf
from django.http import HttpRequest
from opentelemetry import trace

from otel_introspect.engine.places import Place, TaskPlace, here
from otel_introspect.faults import fail_open, failed
from otel_introspect.instrumentation.django.watched_request import WORKER_KEY, WatchedRequest, place_of_task
from otel_introspect.instrumentation.requested_profile import (
    ENVIRON_FORWARDING_HEADERS,
    ENVIRON_HEADER,
    RequestedProfile,
    path_in_scope,
    query_in_scope,
    scope_without_us,
)
from otel_introspect.introspection import Introspection
from otel_introspect.triggers.asking import Asked, asked, is_loopback

_ATTRIBUTE: Final = "_otel_introspect_profile"
"""Of a request, while it is up to the application to have it profiled."""


def requested(request: HttpRequest, introspection: Introspection | None) -> RequestedProfile | None:
    """The profile that *request* asks for; None, at once, for nearly all. Never raises.

    Called where the request runs, inside OpenTelemetry's middleware.
    """
    try:
        meta = request.META
        if asked(meta.get("QUERY_STRING", ""), meta.get(ENVIRON_HEADER)) is None or introspection is None:
            return None
        return _requested(request, introspection)
    except Exception as error:  # noqa: BLE001 - see above
        failed("looking whether a request asks for a profile", error)
        return None


def _requested(request: HttpRequest, introspection: Introspection) -> RequestedProfile | None:
    meta = request.META
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    # As bytes in a string's clothes, which Django's own is not under ASGI.
    query: str = meta["QUERY_STRING"] if scope is None else query_in_scope(scope)
    wanted = asked(query, meta.get(ENVIRON_HEADER))
    if wanted is None:
        return None
    watched = WatchedRequest.of(request)
    span = trace.get_current_span() if watched is None else watched.span
    profile = RequestedProfile(introspection, wanted, span, lambda: _place_of(meta))
    path = _path_of(request) if scope is None else path_in_scope(scope)
    _hide(request, wanted)
    profile.decide(request.method or "", path, query, is_developer=lambda: _is_developer(meta))
    if profile.is_undecided:
        setattr(request, _ATTRIBUTE, profile)
    profile.enter()
    return profile


def _place_of(meta: Mapping[str, Any]) -> int | Place:
    """Where a request runs that nobody follows."""
    place = here()
    task = asyncio.current_task() if isinstance(place, TaskPlace) else None
    return place if task is None else place_of_task(task, meta.get(WORKER_KEY))


def _path_of(request: HttpRequest) -> bytes:
    # Django has decoded what the server has put there. What is no UTF-8 can't be told from its escaped form any more:
    # such a page can't be signed.
    return request.path.encode("utf-8", "surrogatepass")


def _is_developer(meta: Mapping[str, Any]) -> bool:
    forwarded = [meta[name] for name in ENVIRON_FORWARDING_HEADERS if name in meta]
    # Not by name: what looks at this module, as doctest does, would have the settings set up.
    return conf.settings.DEBUG is True and is_loopback(meta.get("REMOTE_ADDR", ""), forwarded)


def _hide(request: HttpRequest, wanted: Asked) -> None:
    """Let the view see a request that has not asked."""
    request.META["QUERY_STRING"] = wanted.query
    request.META.pop(ENVIRON_HEADER, None)
    for cached in ("GET", "headers"):
        vars(request).pop(cached, None)
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    if scope is not None:
        request.META["QUERY_STRING"] = wanted.query.encode("latin-1").decode("utf-8", "replace")
        request.scope = scope_without_us(scope, wanted)  # type: ignore[attr-defined]  # under ASGI only


# Django calls these just before the view, when there is a user.


def process_view(request: HttpRequest, *_args: object) -> None:
    """Ask the application, if it is to say whether *request* is profiled."""
    if _ATTRIBUTE in request.__dict__:
        with fail_open("asking whether a request is to be profiled"):
            vars(request).pop(_ATTRIBUTE).ask(request)


async def process_view_in_task(request: HttpRequest, *_args: object) -> None:
    """The same under ASGI."""
    if _ATTRIBUTE in request.__dict__:
        with fail_open("asking whether a request is to be profiled"):
            profile: RequestedProfile = vars(request).pop(_ATTRIBUTE)
            # On a thread, as it may take the database to know the user.
            if await sync_to_async(profile.is_allowed)(request):
                profile.begin()


def leave(profile: RequestedProfile | None, response: Any) -> None:  # noqa: ANN401 - or what a broken middleware returns
    """The request is over: end its profile, and say in *response*, if there is one, what became of it. Never raises."""
    if profile is None:
        return
    with fail_open("answering a request that asks for a profile"):
        profile.leave()
        # A server's own span goes on, and so does the profile, to the end of the body.
        if not (profile.outlives_request and getattr(response, "streaming", False)):
            profile.finish()
        if response is not None:
            for name, value in profile.headers():
                others = response.get(name)
                response[name] = f"{others}, {value}" if others and name == "Server-Timing" else value
