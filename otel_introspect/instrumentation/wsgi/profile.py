"""Profiles of the requests of any WSGI application that ask for one.

.. code-block:: python

    app.wsgi_app = ProfileMiddleware(app.wsgi_app)

Goes inside OpenTelemetry's own middleware, whose span the profile is put on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from opentelemetry.trace import get_current_span

from otel_introspect.faults import failed
from otel_introspect.instrumentation.requested_profile import ENVIRON_HEADER, Allow, RequestedProfile, nobody
from otel_introspect.instrumentation.wsgi.deadline import Application, Environ, Headers, StartResponse, Write
from otel_introspect.introspection import active
from otel_introspect.triggers.asking import asked


class ProfileMiddleware:
    """Profiles a request that shows that it may be, and says in a header of the answer what became of it.

    A signed request may, and one that *allow* admits; see ``otel-introspect sign``. The application sees neither our
    parameter nor our header, and answers as always. The profile goes on until the body is exhausted or closed.

    Args:
        app: The application.
        allow: Asked with the WSGI environ of a request that is not signed; admits it by the answer True. If None is
            given, what ``OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW`` names.
    """

    def __init__(self, app: Application, *, allow: Allow | None = None) -> None:
        self._app = app
        self._allow: Final = allow

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        profile = self._requested(environ)
        if profile is None:
            return self._app(environ, start_response)

        def start(status: str, headers: Headers, *error: Any) -> Write:  # noqa: ANN401 - handed on as it is
            return start_response(status, [*headers, *profile.headers()], *error)

        profile.enter()
        try:
            body = self._app(environ, start)
        except BaseException:
            profile.finish()
            raise
        finally:
            profile.leave()
        if not profile.is_taken or isinstance(body, (list, tuple)):
            # Iterating over these runs nothing of the application's, and servers treat them better than an iterator.
            profile.finish()
            return body
        return _Body(body, profile)

    def _requested(self, environ: Environ) -> RequestedProfile | None:
        try:
            query = environ.get("QUERY_STRING", "")
            wanted = asked(query, environ.get(ENVIRON_HEADER))
            introspection = active() if wanted is not None else None
            if wanted is None or introspection is None:
                return None
            profile = RequestedProfile(introspection, wanted, get_current_span())
            environ["QUERY_STRING"] = wanted.query
            environ.pop(ENVIRON_HEADER, None)
            path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}".encode("latin-1")
            may_allow = self._allow is not None or None
            profile.decide(environ["REQUEST_METHOD"], path, query, is_developer=nobody, may_allow=may_allow)
            profile.ask(environ, self._allow)
        except Exception as error:  # noqa: BLE001 - it would reach the application
            failed("looking whether a request asks for a profile", error)
            return None
        return profile


class _Body:
    """The body of a request that is being profiled.

    Args:
        body: The application's.
        profile: Goes on until it is exhausted or closed.
    """

    def __init__(self, body: Iterable[bytes], profile: RequestedProfile) -> None:
        self._body = body
        self._profile = profile
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._profile.part():
                if self._chunks is None:
                    self._chunks = iter(self._body)
                return next(self._chunks)
        except BaseException:  # the end of the body, too
            self._profile.finish()
            raise

    def close(self) -> None:
        """Called by the server when it is done with the body."""
        self._profile.finish()
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
