"""How much work the slow views do, as measured on this machine by ``prepare``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True)
class Workload:
    """Sizes that make each slow view take between one and three seconds, whatever the machine.

    Args:
        addresses: How many addresses are imported.
        address_length: How long each of them is; one more doubles the time.
        open_orders: How many orders the back office looks at.
        report_lines: How many order lines the price report compares.
        cart_items: How many articles the discount search combines.
        cart_rounds: For how many groups of customers it does.
    """

    addresses: int = 6
    address_length: int = 22
    open_orders: int = 150
    report_lines: int = 3000
    cart_items: int = 14
    cart_rounds: int = 20

    def save(self) -> None:
        """Keep it for the server's processes."""
        Path(settings.WORKLOAD).write_text(json.dumps(asdict(self)), encoding="utf-8")


@lru_cache(maxsize=1)
def workload() -> Workload:
    """What ``prepare`` found, or sizes that suit most machines."""
    try:
        return Workload(**json.loads(Path(settings.WORKLOAD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Workload()
