"""Orders as a file, sent page by page while it is made."""

from __future__ import annotations

import time
from collections.abc import Iterator

PAGES = 6
SECONDS_A_PAGE = 0.3


def order_export() -> Iterator[str]:
    """CSV, a page at a time."""
    yield "order,total\n"
    for page in range(PAGES):
        yield "".join(f"{number},{total}\n" for number, total in archived_orders(page))


def archived_orders(page: int) -> list[tuple[int, int]]:
    """One page from the archive, which is on slow disks."""
    time.sleep(SECONDS_A_PAGE)
    return [(page * 100 + number, number * 250) for number in range(100)]
