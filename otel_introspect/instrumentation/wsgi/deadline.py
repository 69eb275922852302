"""A deadline for the requests of any WSGI application.

.. code-block:: python

    app.wsgi_app = DeadlineMiddleware(app.wsgi_app, seconds=20.0)

Goes inside OpenTelemetry's own middleware: the interruption is no ``Exception``, and ends here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final, TypeVar

from opentelemetry.context import attach, detach, get_current

from otel_introspect.config import TimeoutConfig
from otel_introspect.errors import DeadlineExceeded, RequestInterrupted
from otel_introspect.faults import failed
from otel_introspect.introspection import active
from otel_introspect.timeouts import timeout

T = TypeVar("T")
Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_BODY: Final = b"The request took too long.\n"
# A block needs more than nothing; this much is over before it is looked at.
_AT_ONCE: Final = 1e-6


def service_unavailable(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with status 503 and a line of plain text."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]
    start_response("503 Service Unavailable", headers)
    return [_BODY]


def _configured() -> float:
    """In seconds."""
    introspection = active()
    config = introspection.config.timeout if introspection is not None else TimeoutConfig.from_env()
    return config.timeout / 1000


class DeadlineMiddleware:
    """Interrupts a request that takes too long, and answers in its stead.

    The limit holds for all that the application does until its body is exhausted or closed. What the server does
    between two chunks of it is not interrupted, but counts.

    If the headers have been sent already, the server is given a ``DeadlineExceeded``, and closes the connection.

    Args:
        app: The application.
        seconds: How long a request may take; None for what ``OTEL_PYTHON_INTROSPECT_TIMEOUT`` says, 0 for no limit.
        response: Another WSGI application, which answers for the one that was interrupted.
    """

    def __init__(
        self, app: Application, seconds: float | None = None, *, response: Application = service_unavailable
    ) -> None:
        self._app = app
        self._seconds: Final = _configured() if seconds is None else seconds
        self._response = response

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        if not self._seconds:
            return self._app(environ, start_response)
        request = _Request(environ, start_response, self._seconds, self._response)
        body: Iterable[bytes] = request.run(lambda: self._app(environ, request.start_response), request.answer)
        # Iterating over these runs nothing of the application's, and servers treat them better than an iterator.
        if isinstance(body, (list, tuple)) or _is_file(body, environ) or request.is_interrupted:
            return body
        return _Body(body, request)


def _is_file(body: object, environ: Environ) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Request:
    """One request.

    Args:
        environ: As of WSGI.
        start_response: The server's.
        seconds: How long it may take.
        response: What answers if it takes longer.
    """

    def __init__(self, environ: Environ, start_response: StartResponse, seconds: float, response: Application) -> None:
        self.is_interrupted = False
        self.has_sent = False
        """Whether the server has been given a part of the body, and so has sent the headers."""
        self._environ = environ
        self._start_response = start_response
        self._due = monotonic() + seconds
        self._response = response
        self._context = get_current()
        self._has_started = False

    def start_response(self, *arguments: Any) -> Write:  # noqa: ANN401 - handed on as they are
        """What the application calls."""
        self._has_started = True
        return self._start_response(*arguments)

    def run(self, part: Callable[[], T], instead: Callable[[], T]) -> T:
        """Do a *part* of the request; if that is interrupted, something *instead*."""
        block = timeout(max(self._due - monotonic(), _AT_ONCE), RequestInterrupted, polite=True)
        token = None
        try:
            with block:
                try:
                    return part()
                except RequestInterrupted:
                    # The block writes to the current span. While the body is produced, that is not the request's.
                    token = attach(self._context)
                    raise
        except RequestInterrupted:
            if not block.expired:
                raise  # it is that of a request within which this one is made
            self.is_interrupted = True
        finally:
            if token is not None:
                detach(token)
        return instead()

    def answer(self) -> Iterable[bytes]:
        """Start another response and return its body.

        Raises:
            DeadlineExceeded: If it is too late for that, as the headers have been sent.
        """
        late = DeadlineExceeded("the request took too long")
        if self.has_sent:
            raise late

        def start_anew(status: str, headers: Headers, _error: object = None) -> Write:
            # The server replaces the headers, or raises the error if it has sent them: the one that is being handled.
            try:
                raise late
            except DeadlineExceeded:
                return self._start_response(status, headers, sys.exc_info())

        start_response = start_anew if self._has_started else self._start_response
        try:
            return self._response(self._environ, start_response)
        except Exception as error:
            if error is late:
                raise
            failed("answering an interrupted request", error)
            return service_unavailable(self._environ, start_anew)


class _Body:
    """The body of a request, each step of which is limited.

    Args:
        body: The application's.
        request: The request.
    """

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._bodies = [body]
        self._request = request
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._request.is_interrupted:
            return self._step()
        chunk = self._request.run(self._step, self._step_instead)
        self._request.has_sent = self._request.has_sent or bool(chunk)
        return chunk

    def _step(self) -> bytes:
        if self._chunks is None:
            self._chunks = iter(self._bodies[-1])
        return next(self._chunks)

    def _step_instead(self) -> bytes:
        self._bodies.append(self._request.answer())
        self._chunks = None
        return self._step()

    def close(self) -> None:
        """Called by the server when it is done with the body: so is the application then."""
        bodies, self._bodies = self._bodies, []
        with ExitStack() as stack:
            for body in bodies:
                close = getattr(body, "close", None)
                if close is not None:
                    stack.callback(close)
