"""Who offers to carry mails: the adapter of a framework that is at work here, and sends mails itself.

It offers itself when it is switched on, which is at each start of each process: so this loads nothing, neither a
framework nor what a mail is made of. It is asked when a mail is to be sent, as its settings may be there by then and
not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_introspect.exporters.carrier import Carrier

Offer = Callable[[], "Carrier | None"]
"""Returns a carrier, or None while there is none."""

_offers: Final[list[Offer]] = []


def offer(one: Offer) -> None:
    """Be asked for a carrier, from now on."""
    if one not in _offers:
        _offers.append(one)


def withdraw(one: Offer) -> None:
    """Be asked no more."""
    if one in _offers:
        _offers.remove(one)


def offered() -> Carrier | None:
    """The first carrier that there is now."""
    return next((found for found in (each() for each in list(_offers)) if found is not None), None)
