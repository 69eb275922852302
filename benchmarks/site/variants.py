"""The ways to run the site that are compared with each other: with ours, without, and with what others offer."""

from __future__ import annotations

from typing import Final

from benchmarks.peers import dogslow_is_there
from benchmarks.programs import WITHOUT_US, environment

BASE: Final = "OpenTelemetry"
OURS: Final = "otel_introspect"
DOGSLOW: Final = "dogslow"

_MIDDLEWARE: Final = {DOGSLOW: "dogslow.WatchdogMiddleware", "threading.Timer": "benchmarks.peers.TimerMiddleware"}


def variants() -> dict[str, dict[str, str]]:
    """The environment of each variant; all but ours add to the same base."""
    peers = {
        name: {**WITHOUT_US, "BENCHMARK_MIDDLEWARE": path}
        for name, path in _MIDDLEWARE.items()
        if name != DOGSLOW or dogslow_is_there()
    }
    found = {BASE: WITHOUT_US, f"{BASE}, again": WITHOUT_US, OURS: {"BENCHMARK_WATCHED": "true"}, **peers}
    return {
        name: environment(DJANGO_SETTINGS_MODULE="benchmarks.site.settings", **variables)
        for name, variables in found.items()
    }
