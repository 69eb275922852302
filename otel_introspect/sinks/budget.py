"""How many bytes of evidence a span may carry and a process may emit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from otel_introspect.engine.clock import Clock
from otel_introspect.engine.stack_text import utf8_length
from otel_introspect.engine.stacks import Capture

SPAN_BYTES: Final = 16 * 1024
PROCESS_BYTES: Final = 256 * 1024
"""In each ``PROCESS_WINDOW``: OTLP over gRPC loses a batch of more than 4 MiB whole."""
PROCESS_WINDOW: Final = 5_000_000_000
# Enough for one snapshot of usual size.
_ROOM_FOR_ONE: Final = 4 * 1024
_NUMBER_BYTES: Final = 8


def size_of(name: str, attributes: Mapping[str, AttributeValue]) -> int:
    """What an event weighs: its name, its keys and values in UTF-8, numbers at eight bytes."""
    return utf8_length(name) + sum(utf8_length(key) + _size_of_value(value) for key, value in attributes.items())


def _size_of_value(value: AttributeValue) -> int:
    if isinstance(value, str):
        return utf8_length(value)
    if isinstance(value, Sequence):
        return sum(_size_of_value(each) for each in value)
    return _NUMBER_BYTES


class SpanLedger:
    """What one span has been given so far."""

    __slots__ = ("__weakref__", "capture", "left", "lock", "repeated", "reserved", "snapshots", "threads_shown")

    def __init__(self) -> None:
        self.left = SPAN_BYTES
        self.reserved = 0
        """Bytes of what is left that are kept for a profile."""
        self.snapshots = 0
        self.capture: Capture | None = None
        self.repeated = 0
        self.threads_shown = False
        # Re-entrant for the same reason as a watch's lock.
        self.lock: Final = threading.RLock()

    def note(self, capture: Capture) -> int:
        """Remember a stack; says how many in a row have been identical, this one included."""
        self.repeated = self.repeated + 1 if capture.same_as(self.capture) else 1
        self.capture = capture
        return self.repeated


class SpanLedgers:
    """The ledgers of the spans that have any; they go with their spans."""

    def __init__(self) -> None:
        self._ledgers: WeakKeyDictionary[Span, SpanLedger] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, span: Span) -> SpanLedger:
        """The ledger of *span*, opened at its first use."""
        with self._lock:
            ledger = self._ledgers.get(span)
            if ledger is None:
                ledger = self._ledgers[span] = SpanLedger()
            return ledger

    def after_fork(self) -> None:
        """In a forked child the lock may be held by a thread that isn't there any more."""
        self._lock = threading.Lock()


class ProcessBudget:
    """A sliding window over what the process emits.

    Args:
        clock: What time it is.
        limit: How many bytes there may be in one window.
    """

    def __init__(self, clock: Clock, limit: int = PROCESS_BYTES) -> None:
        self._clock = clock
        self._limit = limit
        self._spent: deque[tuple[int, int]] = deque()
        self._total = 0

    def has_room(self, size: int = _ROOM_FOR_ONE) -> bool:
        """Whether *size* more bytes may be emitted now."""
        horizon = self._clock.monotonic() - PROCESS_WINDOW
        while self._spent and self._spent[0][0] <= horizon:
            self._total -= self._spent.popleft()[1]
        return self._total + size <= self._limit

    def spend(self, size: int) -> None:
        """Account for *size* bytes that were emitted."""
        self._spent.append((self._clock.monotonic(), size))
        self._total += size
