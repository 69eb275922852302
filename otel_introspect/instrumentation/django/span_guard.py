"""Ends the span of a request that is aborted, which OpenTelemetry's own middleware does not.

An exception that is no ``Exception`` (``SystemExit``, a cancellation, a greenlet's end) passes through OpenTelemetry's
middleware without a trace: its span would end only when it is collected, and the next request on the thread would
become its child. It goes on from here unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from opentelemetry.context import detach
from opentelemetry.instrumentation.django.middleware.otel_middleware import _DjangoMiddleware
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Status, StatusCode

from otel_introspect.engine.native import get_ident
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.django.watched_request import WORKER_KEY

Handler = Callable[[HttpRequest], Any]


def span_guard_middleware(get_response: Handler) -> Handler:
    """Make the middleware; synchronous as OpenTelemetry's is, so that both run on one thread and in one context.

    Needed under ASGI only, where the middleware inside OpenTelemetry's runs in another thread and context. By its
    file's name the engine knows that this one stands outside.
    """

    def span_guard(request: HttpRequest) -> HttpResponseBase:
        # asgiref has this thread do the synchronous work of all that is inside.
        request.META[WORKER_KEY] = get_ident()
        try:
            response: HttpResponseBase = get_response(request)
        except BaseException as error:
            with fail_open("ending the span of an aborted request"):
                end_span(request, error)
            raise
        return response

    return span_guard


def end_span(request: HttpRequest, error: BaseException) -> None:
    """End the span that OpenTelemetry's middleware has made for *request*, as that one would; mark it with *error*."""
    meta = request.META
    span = meta.pop(_DjangoMiddleware._environ_span_key, None)
    activation = meta.pop(_DjangoMiddleware._environ_activation_key, None)
    token = meta.pop(_DjangoMiddleware._environ_token, None)
    counted = meta.pop(_DjangoMiddleware._environ_active_request_attr_key, None)
    counter: Any = _DjangoMiddleware._active_request_counter
    if counted is not None and counter is not None:
        counter.add(-1, counted)
    if span is not None and span.is_recording():
        name = type(error).__qualname__
        span.set_attribute(ERROR_TYPE, name)
        span.set_status(Status(StatusCode.ERROR, f"{name} while the request was running"))
    if activation is not None:
        activation.__exit__(None, None, None)
    if token is not None:
        detach(token)
