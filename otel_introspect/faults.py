"""Our own faults: counted, logged once for each place, never raised into the application."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from types import TracebackType

_logger = logging.getLogger(__name__)

Kind = Literal["dropped", "refused", "failed"]

counts: Final[Counter[tuple[Kind, str]]] = Counter()
"""How often something was dropped (no room), refused (not allowed now) or failed (our own fault), by reason."""

_told: Final[set[str]] = set()


def count(kind: Kind, reason: str) -> None:
    """Count without a word: losing evidence to a bound is normal."""
    # += on a Counter is not atomic between threads; a count that is off by one after a race is good enough here.
    counts[kind, reason] += 1


def failed(doing: str, error: BaseException) -> None:
    """Count a fault of our own, and log it if it is the first one *doing* this.

    Never raises: not even when the application's own logging does.
    """
    count("failed", doing)
    if doing in _told:
        return
    _told.add(doing)
    try:
        _logger.error(
            "otel_introspect failed while %s; the application is unaffected. More such faults are only counted.",
            doing,
            exc_info=error,
        )
    except Exception:  # noqa: BLE001 - a handler of the application's that raises must not reach the request
        count("failed", "logging a fault")


def warn(message: str, *args: object) -> None:
    """Log a warning each time; for who sees to it by itself that it is not said too often."""
    try:
        _logger.warning(message, *args)
    except Exception:  # noqa: BLE001 - see failed()
        count("failed", "logging a notice")


def tell_once(level: int, message: str, *args: object) -> None:
    """Log *message* the first time that it is said with these *args* in this process."""
    key = f"{message}\0{args!r}"
    if key in _told:
        return
    _told.add(key)
    try:
        _logger.log(level, message, *args)
    except Exception:  # noqa: BLE001 - see failed()
        count("failed", "logging a notice")


class fail_open:  # noqa: N801 - reads as a statement, like contextlib.suppress
    """Swallow, count and log once any ``Exception`` from the body.

    Other ``BaseException`` pass: interruptions and exits belong to the application.

    Args:
        doing: What the body does, to go after "failed while".
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        failed(self._doing, error)
        return True


def forget() -> None:
    """Start afresh: for tests, and for a forked child, whose parent's counts are not its own."""
    counts.clear()
    _told.clear()
