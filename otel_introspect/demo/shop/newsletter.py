"""Subscribers of the newsletter."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The repeated group may end anywhere within a run of letters: without an @ there are 2^n ways to find that out.
ADDRESS = re.compile(r"([a-z0-9]+[._-]?)+@([a-z0-9-]+\.)+[a-z]{2,}")


def rejected_addresses(addresses: Iterable[str]) -> list[str]:
    """Those of *addresses* that no mail can be sent to."""
    return [address for address in addresses if not is_address(address)]


def is_address(text: str) -> bool:
    """Whether *text* looks like an address."""
    return ADDRESS.fullmatch(text) is not None
