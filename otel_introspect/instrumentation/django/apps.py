"""Makes the package something that ``INSTALLED_APPS`` can name, for its template tags. Nothing else needs that."""

from __future__ import annotations

from django.apps import AppConfig


class IntrospectConfig(AppConfig):
    """No models, no signals: only a place in which Django looks for ``templatetags``."""

    name = "otel_introspect.instrumentation.django"
    label = "otel_introspect"  # the last part of the name, which Django would take, is "django"
    verbose_name = "OpenTelemetry introspection"
