"""The names that replace the older tools' settings."""

from __future__ import annotations

from typing import Final

from otel_introspect import environment_variables as env

THRESHOLD: Final = env.OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD
LOCALS: Final = env.OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS
EXCLUDED_URLS: Final = env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS
STORE: Final = env.OTEL_PYTHON_INTROSPECT_PROFILER_STORE
KEY: Final = env.OTEL_PYTHON_INTROSPECT_PROFILER_KEY
ALLOW: Final = env.OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW
DISABLED: Final = env.OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED
REPORTS_DIR: Final = env.OTEL_PYTHON_INTROSPECT_REPORTS_DIR
EMAIL_TO: Final = env.OTEL_PYTHON_INTROSPECT_EMAIL_TO
EMAIL_FROM: Final = env.OTEL_PYTHON_INTROSPECT_EMAIL_FROM
TRACES_EXPORTER: Final = "OTEL_TRACES_EXPORTER"

OTLP: Final = "otlp"
EMAIL: Final = "introspect_email"
LOGGING: Final = "introspect_logging"
FILES: Final = "introspect_files"

LOGGER: Final = "otel_introspect.slow_requests"
"""To which ``introspect_logging`` writes."""
APPLICATION: Final = "otel_introspect.instrumentation.django"
"""What ``INSTALLED_APPS`` names for the template tag."""
PACKAGE: Final = "otel_introspect"
