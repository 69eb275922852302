"""Discounts."""

from __future__ import annotations

from collections.abc import Sequence

FREE_SHIPPING_CENTS = 5_000


def best_bundle(prices: Sequence[int]) -> int:
    """The least that a customer can spend of *prices* to have the parcel for nothing.

    Tries every combination, of which there are 2^n.
    """
    best = sum(prices)
    for choice in range(1 << len(prices)):
        total = bundle_price(prices, choice)
        if FREE_SHIPPING_CENTS <= total < best:
            best = total
    return best


def bundle_price(prices: Sequence[int], choice: int) -> int:
    """What the articles cost whose bit in *choice* is set."""
    return sum(price for position, price in enumerate(prices) if choice >> position & 1)
