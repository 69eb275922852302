"""What was done, counted: plain numbers that cost whoever adds to them next to nothing; metrics read them.

What is wanted: counts of what is done on the introspector's thread, by a thread that ends a slow span, or by one that
recovers a dead process's.

What does not work: OpenTelemetry's instruments there, as they take locks, and who counts may hold any.

So: plain numbers here. Only how late a snapshot was goes to an instrument at once, as nothing can be read later of
which a histogram could be made; it is handed on where locks may be taken.

What can still fail: adding is not atomic between threads; a count that is off by one after a race is good enough.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

from otel_introspect.faults import fail_open

What = Literal["snapshots", "interruptions", "recovered"]

counts: Final[Counter[tuple[What, str]]] = Counter()
"""How many, by what and kind: snapshots by observer, interruptions by mechanism, recovered spans."""

Record = Callable[[float, dict[str, str]], object]
_record: Record | None = None


def tally(what: What, kind: str = "", number: int = 1) -> None:
    """Count something that was done."""
    counts[what, kind] += number


def record_lateness_with(record: Record | None) -> None:
    """Have *record* told of each snapshot's lateness, in seconds, with its attributes."""
    global _record  # noqa: PLW0603 - one for the process
    _record = record


def late(milliseconds: int, attributes: dict[str, str]) -> None:
    """Tell how late a snapshot was. Not in a POSIX signal's handler: whoever is told may take locks."""
    record = _record
    if record is not None:
        with fail_open("recording how late a snapshot was"):
            record(milliseconds / 1000, attributes)


def forget() -> None:
    """Start afresh: in a forked child, whose parent's counts are not its own, and for tests."""
    counts.clear()


os.register_at_fork(after_in_child=forget)
