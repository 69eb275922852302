"""Deadlines in a greenlet: a timer of gevent's hub throws the exception into it, as ``gevent.Timeout`` does.

A greenlet that does not let the hub run is not interrupted before it does.
"""

from __future__ import annotations

import sys
from math import inf
from typing import Any

from otel_introspect.engine.deadline import ATTEMPTS, GRACE, Deadline, Raised


def is_under_gevent() -> bool:
    """Whether this thread's blocking calls are gevent's: its hub runs here, or ``time.sleep`` is patched."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("time"):
        return True
    hub = sys.modules.get("gevent._hub_local") or sys.modules.get("gevent.hub")
    return hub is not None and hub.get_hub_if_exists() is not None


class GreenletDeadline(Deadline):
    """A block in a greenlet."""

    mechanism = "greenlet"

    def __init__(self, seconds: float, exception: Raised, now: float) -> None:
        super().__init__(seconds, exception, now)
        import gevent  # type: ignore[import-untyped]

        self.context = self._greenlet = gevent.getcurrent()
        self._loop = gevent.get_hub().loop
        self._timer: Any = None
        self._start(seconds)

    def _start(self, seconds: float) -> None:
        self._timer = self._loop.timer(seconds)
        self._timer.start(self._expire)

    def _withdraw(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _expire(self) -> None:
        # In the hub. Throwing switches to the greenlet, and comes back here when that waits again.
        self._withdraw()
        self.attempts += 1
        if self.attempts < ATTEMPTS:
            self._start(GRACE)
        self.error = self.make_error()
        self._greenlet.throw(self.error)

    def close(self, error: BaseException | None) -> BaseException | None:
        """See ``Deadline``."""
        self._withdraw()
        if error is not None and error is self.error:
            self.take_down_from(error)
        return error

    def cancel(self) -> None:
        """See ``Deadline``."""
        self._withdraw()
        self.expires = inf
