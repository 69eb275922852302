"""A slow request explains itself: stacks of the request that is stuck, as OpenTelemetry span events."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_introspect.engine.quota import Quota
    from otel_introspect.errors import DeadlineExceeded
    from otel_introspect.exemption import exempt
    from otel_introspect.profiles import profile
    from otel_introspect.snapshots import snapshot
    from otel_introspect.timeouts import disable_timeouts, timeout

    __version__: str

__all__ = ["DeadlineExceeded", "Quota", "__version__", "disable_timeouts", "exempt", "profile", "snapshot", "timeout"]

_PLACES = {
    "DeadlineExceeded": "errors",
    "Quota": "engine.quota",
    "disable_timeouts": "timeouts",
    "exempt": "exemption",
    "profile": "profiles",
    "snapshot": "snapshots",
    "timeout": "timeouts",
}


def __getattr__(name: str) -> object:
    # Late, so that the launcher, which imports a submodule at every start of every Python process, pays for that one
    # only.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("otel-introspect")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
