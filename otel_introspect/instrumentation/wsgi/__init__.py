"""Middleware for any WSGI application: a deadline for its requests, and profiles of those that ask for one."""

from __future__ import annotations

from otel_introspect.instrumentation.wsgi.deadline import (
    Application,
    DeadlineMiddleware,
    Environ,
    Headers,
    StartResponse,
    Write,
    service_unavailable,
)
from otel_introspect.instrumentation.wsgi.profile import ProfileMiddleware

__all__ = [
    "Application",
    "DeadlineMiddleware",
    "Environ",
    "Headers",
    "ProfileMiddleware",
    "StartResponse",
    "Write",
    "service_unavailable",
]
