"""Plain ASGI, whose entry spans are made by nobody's instrumentation."""

from __future__ import annotations

import asyncio
import contextlib

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind

tracer = trace.get_tracer("plain")


async def parked_for_long():
    await asyncio.sleep(30)


async def clings_to_life():
    """As code that swallows its cancellation."""
    for _ in range(30):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


WAYS = {"/parked": parked_for_long, "/clinging": clings_to_life}


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    with tracer.start_as_current_span(f"GET {scope['path']}", context=extract(headers), kind=SpanKind.SERVER):
        await WAYS.get(scope["path"], lambda: asyncio.sleep(0))()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"fast"})
