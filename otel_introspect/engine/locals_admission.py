"""When local variables may be taken: once a second in a process, and once an hour for each stack."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from otel_introspect.engine.clock import Clock
from otel_introspect.engine.stacks import Capture
from otel_introspect.faults import count

_SECOND: Final = 1_000_000_000
_HOUR: Final = 3600 * _SECOND
# Of which it is known when they were last shown; the oldest are forgotten, and may be shown again.
_MAX_STACKS: Final = 1024


class Admission:
    """Remembers what has been shown.

    Args:
        clock: What time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: int | None = None
        self._stacks: OrderedDict[int, int] = OrderedDict()

    def admits(self, stack: Capture) -> bool:
        """Whether the variables of *stack* may be taken now; if so, it is taken down that they are."""
        now = self._clock.monotonic()
        if self._last is not None and now < self._last + _SECOND:
            count("refused", "locals: more than one in a second")
            return False
        key = _key(stack)
        before = self._stacks.get(key)
        if before is not None and now < before + _HOUR:
            count("refused", "locals: this stack had them within the hour")
            return False
        self._stacks[key] = self._last = now
        self._stacks.move_to_end(key)
        if len(self._stacks) > _MAX_STACKS:
            self._stacks.popitem(last=False)
        return True


def _key(stack: Capture) -> int:
    # Not by the code objects, which are not to be kept alive for an hour, nor by their ids, which are given out again.
    return hash(tuple((code.co_filename, code.co_firstlineno, code.co_name, lasti) for code, lasti in stack.positions))
