"""Profiles of the requests of any ASGI application that ask for one.

.. code-block:: python

    app = ProfileMiddleware(app)

Goes inside OpenTelemetry's own middleware, whose span the profile is put on.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.trace import get_current_span

from otel_introspect.faults import failed
from otel_introspect.instrumentation.asgi.deadline import Application, Message, Receive, Scope, Send
from otel_introspect.instrumentation.requested_profile import (
    SCOPE_HEADER,
    Allow,
    RequestedProfile,
    nobody,
    path_in_scope,
    query_in_scope,
    scope_without_us,
)
from otel_introspect.introspection import active
from otel_introspect.triggers.asking import asked


class ProfileMiddleware:
    """Profiles a request that shows that it may be, and says in a header of the answer what became of it.

    A signed request may, and one that *allow* admits; see ``otel-introspect sign``. The application sees neither our
    parameter nor our header, and answers as always. The profile is of the task in which the application runs, and goes
    on until the response is complete. Only HTTP requests are profiled, neither WebSockets nor the lifespan.

    Args:
        app: The application.
        allow: Asked with the ASGI scope of a request that is not signed; admits it by the answer True. If None is
            given, what ``OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW`` names.
    """

    def __init__(self, app: Application, *, allow: Allow | None = None) -> None:
        self._app = app
        self._allow: Final = allow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        profile = self._requested(scope) if scope["type"] == "http" else None
        if profile is None:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_encoded(profile.headers())]}
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                profile.finish()  # OpenTelemetry's middleware ends the span as soon as it has sent this
            await send(message)

        profile.enter()
        try:
            await self._app(scope_without_us(scope, profile.asked), receive, send_with_headers)
        finally:
            profile.finish()
            profile.leave()

    def _requested(self, scope: Scope) -> RequestedProfile | None:
        try:
            query = query_in_scope(scope)
            header = [value for name, value in scope.get("headers", ()) if name == SCOPE_HEADER]
            wanted = asked(query, header[0].decode("latin-1") if header else None)
            introspection = active() if wanted is not None else None
            if wanted is None or introspection is None:
                return None
            profile = RequestedProfile(introspection, wanted, get_current_span())
            may_allow = self._allow is not None or None
            profile.decide(scope["method"], path_in_scope(scope), query, is_developer=nobody, may_allow=may_allow)
            profile.ask(scope, self._allow)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("looking whether a request asks for a profile", error)
            return None
        return profile


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]
