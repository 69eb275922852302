"""Stock, and the lock around it."""

from __future__ import annotations

import threading
import time

RECOUNT_SECONDS = 1.7
PATIENCE_SECONDS = 10.0

_stock_lock = threading.Lock()
_stock = {"umbrella": 12, "lamp": 3}


class StockBusyError(RuntimeError):
    """The stock was locked for longer than a customer waits."""


def start_maintenance() -> None:
    """Recount the shelves in the background, and refresh the price tags as soon as that is done."""
    started = threading.Event()
    threading.Thread(target=recount_shelves, args=(started,), name="stock-recount", daemon=True).start()
    started.wait(PATIENCE_SECONDS)
    for number in (1, 2):
        threading.Thread(target=refresh_price_tags, name=f"price-tags-{number}", daemon=True).start()


def recount_shelves(started: threading.Event) -> None:
    """Holds the lock all the time that it counts, which is the mistake."""
    with _stock_lock:
        started.set()
        count_every_shelf()


def count_every_shelf() -> None:
    """Somebody walks past the shelves with a scanner."""
    time.sleep(RECOUNT_SECONDS)


def refresh_price_tags() -> None:
    """Needs the stock for a moment only."""
    if _stock_lock.acquire(timeout=PATIENCE_SECONDS):
        _stock_lock.release()


def reserve(article: str) -> int:
    """Take one of *article* off the shelf; how many are left.

    Raises:
        StockBusyError: If somebody else keeps the stock locked.
    """
    if not _stock_lock.acquire(timeout=PATIENCE_SECONDS):
        raise StockBusyError
    try:
        _stock[article] -= 1
        return _stock[article]
    finally:
        _stock_lock.release()
