"""A slow request explains itself: stacks of the request that is stuck, as OpenTelemetry span events."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_introspect.exemption import exempt
    from otel_introspect.snapshots import snapshot

    __version__: str

__all__ = ["__version__", "exempt", "snapshot"]


def __getattr__(name: str) -> object:
    # Late, so that the launcher, which imports a submodule at every start of every Python process, pays for that one
    # only.
    if name == "exempt":
        from otel_introspect.exemption import exempt

        return exempt
    if name == "snapshot":
        from otel_introspect.snapshots import snapshot

        return snapshot
    if name == "__version__":
        from importlib.metadata import version

        return version("otel-introspect")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
