"""Whether what the demo runs on is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

_MODULES: Final = {
    "django": "django",
    "gunicorn": "gunicorn",
    "opentelemetry.distro": "opentelemetry-distro",
    "opentelemetry.instrumentation.django": "opentelemetry-instrumentation-django",
    "opentelemetry.instrumentation.sqlite3": "opentelemetry-instrumentation-sqlite3",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2": "opentelemetry-proto",
}
INSTALL: Final = "pip install 'otel-introspect[demo]'"


def missing() -> list[str]:
    """The distributions that the demo lacks."""
    return [distribution for module, distribution in _MODULES.items() if not _there(module)]


def possible() -> bool:
    """Whether this operating system can run gunicorn at all."""
    return os.name == "posix"


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing, or is not what it should be
        return False
