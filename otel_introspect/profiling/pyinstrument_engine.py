"""pyinstrument's own profiler, which is called by the interpreter at each call and return, instead of our sampler.

It sees every call of the one thread or task that starts it, and doubles or triples what that costs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otel_introspect.faults import fail_open

if TYPE_CHECKING:
    from pyinstrument import Profiler
    from pyinstrument.session import Session

_PROFILER_TOOL: Final = 2  # sys.monitoring.PROFILER_ID: cProfile from 3.12 on


class CallHook:
    """One run of pyinstrument's profiler.

    Args:
        profiler: It has been started.
    """

    def __init__(self, profiler: Profiler) -> None:
        self._profiler = profiler
        self._session: Session | None = None

    @classmethod
    def start(cls, interval: float) -> CallHook | None:
        """Start it here; None if somebody else profiles already, who would have to go for it.

        Args:
            interval: In seconds.
        """
        if _is_taken():
            return None
        with fail_open("starting pyinstrument's profiler"):
            from pyinstrument import Profiler

            profiler = Profiler(interval=interval, async_mode="enabled")
            profiler.start()
            return cls(profiler)
        return None

    def stop(self) -> None:
        """Stop it, on the thread and in the task that have started it."""
        if self._session is None:
            with fail_open("stopping pyinstrument's profiler"):
                self._session = self._profiler.stop()

    def session(self, description: str) -> Session:
        """What it has seen.

        Raises:
            RuntimeError: If it was not stopped.
        """
        if self._session is None:
            msg = "pyinstrument's profiler could not be stopped"
            raise RuntimeError(msg)
        self._session.target_description = description
        return self._session


def _is_taken() -> bool:
    monitoring = getattr(sys, "monitoring", None)
    return sys.getprofile() is not None or (monitoring is not None and monitoring.get_tool(_PROFILER_TOOL) is not None)
