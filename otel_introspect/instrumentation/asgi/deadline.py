"""A deadline for the requests of any ASGI application.

.. code-block:: python

    app = DeadlineMiddleware(app, seconds=20.0)

Goes inside OpenTelemetry's own middleware: the interruption is no ``Exception``, and ends here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from otel_introspect.config import TimeoutConfig
from otel_introspect.errors import DeadlineExceeded, RequestInterrupted
from otel_introspect.faults import failed
from otel_introspect.introspection import active
from otel_introspect.timeouts import timeout

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY: Final = b"The request took too long.\n"


async def service_unavailable(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with status 503 and a line of plain text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


def _configured() -> float:
    """In seconds."""
    introspection = active()
    config = introspection.config.timeout if introspection is not None else TimeoutConfig.from_env()
    return config.timeout / 1000


class DeadlineMiddleware:
    """Cancels a request that takes too long, and answers in its stead.

    The limit holds for the task in which the application runs, until its response is complete. What that task has
    handed to a thread goes on to its end; what keeps the event loop to itself is not interrupted before it lets go.

    If the response has been started already, the server is given a ``DeadlineExceeded``, and closes the connection: the
    end of the body would say that it was complete. Only HTTP requests are limited, neither WebSockets nor the lifespan.

    Args:
        app: The application.
        seconds: How long a request may take; None for what ``OTEL_PYTHON_INTROSPECT_TIMEOUT`` says, 0 for no limit.
        response: Another ASGI application, which answers for the one that was interrupted.
    """

    def __init__(
        self, app: Application, seconds: float | None = None, *, response: Application = service_unavailable
    ) -> None:
        self._app = app
        self._seconds: Final = _configured() if seconds is None else seconds
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http" or not self._seconds:
            await self._app(scope, receive, send)
            return
        sending = _Sending(send)
        block = timeout(self._seconds, RequestInterrupted, polite=True)
        try:
            async with block:
                await self._app(scope, receive, sending)
        except RequestInterrupted as interruption:
            if not block.expired:
                raise  # it is that of a request within which this one is made
            if sending.is_complete:
                return  # what goes on after the response, goes on for nobody
            if sending.has_started:
                msg = "the request took too long"
                raise DeadlineExceeded(msg) from interruption
            await self._answer(scope, receive, sending)

    async def _answer(self, scope: Scope, receive: Receive, sending: _Sending) -> None:
        try:
            await self._response(scope, receive, sending)
        except Exception as error:
            if sending.has_started:
                raise
            failed("answering an interrupted request", error)
            await service_unavailable(scope, receive, sending)


class _Sending:
    """The server's ``send``, and how far the response has come.

    Args:
        send: The server's.
    """

    def __init__(self, send: Send) -> None:
        self.has_started = False
        self.is_complete = False
        self._send = send

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.has_started = True
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
        await self._send(message)
