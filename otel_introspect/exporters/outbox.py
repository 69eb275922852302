"""What is still to be told of slow requests: counted by group, and handed out as mails within a limit.

Wanted: the first request of a new trouble is told at once, the ten thousandth of a known one costs no mail; and every
request is told: the numbers that the mails stand for add up to all that there were.

Does not work: a queue, which either grows without end or loses what does not fit; dropping what is above the limit,
since then the worst hour is the one of which least is known.

So: a counter for each group of requests of the same route that are stuck at the same place, with the slowest of them
as an example. A group that was not told within the last hour is due. What can't be told now because of the limit waits,
and is told by one mail for all groups as soon as one may go. One mail of each hour is kept for the end of the process.
What could not be sent is put back into its counter. There are so many groups at most; what comes above shares one.

No thread, no clock and no lock here: see ``mail``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from otel_introspect.exporters.report import Key, key_of
from otel_introspect.exporters.span_view import SpanView

WINDOW: Final = 3600.0
"""Seconds: the hour of the limit, and how long a group is not told again."""
MAX_GROUPS: Final = 100
"""How many groups are kept apart."""
OTHERS: Final = Key("(other requests)", "", "")
"""The group of all that is above that."""

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 600.0


@dataclass(slots=True)
class Portion:
    """How many requests of one group are told, or are to be.

    Args:
        key: The group's.
        example: The slowest of them.
        count: How many.
        first_ns: When the earliest of them started.
        last_ns: When the latest did.
    """

    key: Key
    example: SpanView
    count: int = 1
    first_ns: int = 0
    last_ns: int = 0

    def __post_init__(self) -> None:
        self.first_ns = self.first_ns or self.example.start_ns
        self.last_ns = self.last_ns or self.example.start_ns

    def absorb(self, other: Portion) -> None:
        """Stand for those of *other*, too."""
        self.count += other.count
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        if other.example.duration_ns > self.example.duration_ns:
            self.example = other.example


@dataclass(frozen=True, slots=True)
class Batch:
    """What one mail tells.

    Args:
        portions: One; or all that are waiting, the largest first.
        failed: How many attempts to send a mail have failed since the last one that got through.
        limited: Whether it comes late because of the limit.
        last: Whether there will be no other, as the process ends.
    """

    portions: tuple[Portion, ...]
    failed: int = 0
    limited: bool = False
    last: bool = False

    @property
    def count(self) -> int:
        """How many requests it stands for."""
        return sum(each.count for each in self.portions)


@dataclass(slots=True)
class _Group:
    waiting: Portion | None = None
    told_at: float | None = None


@dataclass(slots=True)
class Outbox:
    """Groups of requests of which somebody is to be told.

    Args:
        max_per_hour: How many mails in any hour.
        max_groups: How many groups are kept apart.
    """

    max_per_hour: int
    max_groups: int = MAX_GROUPS
    waiting: int = 0
    """How many requests nobody has been told of yet."""
    _groups: dict[Key, _Group] = field(default_factory=dict)
    _sent: deque[float] = field(default_factory=deque)
    _failed: int = 0
    _retry_at: float = float("-inf")
    _limited: bool = False

    def add(self, span: SpanView, now: float) -> None:
        """Have *span* told, by whichever mail."""
        self._put(Portion(key_of(span), span), now)

    def take(self, now: float) -> Batch | None:
        """Take out what may be told now; nothing if nothing is due, or may be sent."""
        due = self._due(now)
        if not due or now < self._retry_at:
            return None
        if self._free(now) <= self._reserve:
            self._limited = True
            return None
        if self._limited:
            return self._taken([each for each in self._groups.values() if each.waiting], now)
        return self._taken(due[:1], now)

    def take_all(self, now: float) -> Batch | None:
        """Take out all that waits, for one last mail; nothing if nothing does, or if not even that one may be sent."""
        waiting = [each for each in self._groups.values() if each.waiting]
        return replace(self._taken(waiting, now), last=True) if waiting and self._free(now) else None

    def due_in(self, now: float) -> float | None:
        """In how many seconds there may be something to take; None if not before another ``add``."""
        waiting = [each for each in self._groups.values() if each.waiting]
        if not waiting:
            return None
        at = min(now if each.told_at is None else each.told_at + WINDOW for each in waiting)
        if self._free(now) <= self._reserve:
            # The one whose hour must be over before there is room for another.
            at = max(at, self._sent[len(self._sent) - self.max_per_hour + self._reserve] + WINDOW)
        return max(at, self._retry_at, now) - now

    def sent(self, now: float) -> None:
        """The batch taken last was sent."""
        self._sent.append(now)
        self._failed = 0
        self._retry_at = float("-inf")

    def not_sent(self, batch: Batch, now: float, *, maybe: bool) -> None:
        """*batch* was not sent: it is tried again after a pause, together with what comes meanwhile.

        Args:
            batch: The one taken last.
            now: The time.
            maybe: Whether it may have been sent all the same, so that it counts for the limit.
        """
        self._failed += 1
        self._limited = self._limited or batch.limited
        self._retry_at = now + min(_FIRST_PAUSE * 2 ** min(self._failed - 1, 10), _LONGEST_PAUSE)
        if maybe:
            self._sent.append(now)
        for each in batch.portions:
            self._put(each, now, told_at=None)

    def _put(self, portion: Portion, now: float, **told_at: None) -> None:
        group = self._groups.get(portion.key)
        if group is None:
            if len(self._groups) >= self.max_groups and portion.key != OTHERS:
                self._forget(now)
            if len(self._groups) >= self.max_groups and portion.key != OTHERS:
                portion.key = OTHERS
            group = self._groups.setdefault(portion.key, _Group())
        if told_at:
            group.told_at = None
        self.waiting += portion.count
        if group.waiting is None:
            group.waiting = portion
        else:
            group.waiting.absorb(portion)

    def _taken(self, groups: list[_Group], now: float) -> Batch:
        portions = []
        for each in groups:
            if each.waiting is not None:
                portions.append(each.waiting)
            each.waiting, each.told_at = None, now
        portions.sort(key=lambda portion: -portion.count)
        batch = Batch(tuple(portions), self._failed, self._limited)
        self.waiting -= batch.count
        self._limited = False
        return batch

    def _due(self, now: float) -> list[_Group]:
        return [
            each
            for each in self._groups.values()
            if each.waiting and (each.told_at is None or now - each.told_at >= WINDOW)
        ]

    @property
    def _reserve(self) -> int:
        return 1 if self.max_per_hour > 1 else 0

    def _free(self, now: float) -> int:
        while self._sent and now - self._sent[0] >= WINDOW:
            self._sent.popleft()
        return self.max_per_hour - len(self._sent)

    def _forget(self, now: float) -> None:
        # What was told an hour ago is as good as new.
        old = [
            key
            for key, each in self._groups.items()
            if each.waiting is None and (each.told_at is None or now - each.told_at >= WINDOW)
        ]
        for key in old:
            del self._groups[key]
