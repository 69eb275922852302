"""Django: where a request runs, when it is over, and what of it is not to be watched."""

from otel_introspect.instrumentation.django.instrumentor import IntrospectDjangoInstrumentor

__all__ = ["IntrospectDjangoInstrumentor"]
