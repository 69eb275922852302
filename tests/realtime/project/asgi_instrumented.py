"""What uvicorn serves, with OpenTelemetry's ASGI middleware around it."""

from __future__ import annotations

from asgi import application as inner
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

application = OpenTelemetryMiddleware(inner)
