"""Gunicorn: the last second of a worker that the arbiter has given up on."""

from otel_introspect.instrumentation.gunicorn.instrumentor import IntrospectGunicornInstrumentor

__all__ = ["IntrospectGunicornInstrumentor"]
