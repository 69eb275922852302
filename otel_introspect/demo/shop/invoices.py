"""Invoice numbers, which must have no gaps, so that a lock file is around their making."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from django.conf import settings

CLOSING_SECONDS = 1.9

_numbers = count(1)


@contextmanager
def invoice_file_lock() -> Iterator[None]:
    """Nobody else on this machine makes invoices inside."""
    with Path(settings.INVOICE_LOCK).open("a", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def next_invoice_number() -> int:
    """One more than the last."""
    with invoice_file_lock():
        return next(_numbers)


def start_closing_the_day() -> None:
    """Write the day's journal in the background; it has the lock when this returns."""
    locked = threading.Event()
    threading.Thread(target=_close_the_day, args=(locked,), name="journal", daemon=True).start()
    locked.wait(CLOSING_SECONDS)


def _close_the_day(locked: threading.Event) -> None:
    with invoice_file_lock():
        locked.set()
        time.sleep(CLOSING_SECONDS)
