"""The site as a WSGI application."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

from otel_introspect.introspection import active

application = get_wsgi_application()

# A launcher that fails to instrument goes on without, and would make a fine figure.
if (active() is not None) != (os.environ.get("BENCHMARK_WATCHED") == "true"):
    msg = "the watchdog is not as it should be: on for ours, off for the others"
    raise RuntimeError(msg)
