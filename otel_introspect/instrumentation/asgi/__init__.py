"""Middleware for any ASGI application: a deadline for its requests, and profiles of those that ask for one."""

from __future__ import annotations

from otel_introspect.instrumentation.asgi.deadline import (
    Application,
    DeadlineMiddleware,
    Message,
    Receive,
    Scope,
    Send,
    service_unavailable,
)
from otel_introspect.instrumentation.asgi.profile import ProfileMiddleware

__all__ = [
    "Application",
    "DeadlineMiddleware",
    "Message",
    "ProfileMiddleware",
    "Receive",
    "Scope",
    "Send",
    "service_unavailable",
]
