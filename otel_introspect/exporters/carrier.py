"""Who carries a mail: an SMTP server of one's own, or whatever a framework that is at work here sends its mails with.

A framework's adapter offers itself when it is switched on; nobody imports it, nor the framework, for that. It is asked
when a mail is to be sent, as its settings may be there by then and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A mail as plain data.

    Args:
        recipients: Addresses.
        sender: Empty for what the carrier usually sends from.
        subject: One line.
        body: Any text.
        headers: More of them, each one line of ASCII.
    """

    recipients: tuple[str, ...]
    sender: str = ""
    subject: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


class NotSent(Exception):  # noqa: N818 - reads as what happened
    """Nobody has the mail; after any other exception somebody may."""


class Carrier(Protocol):
    """Sends mails."""

    def send(self, letter: Letter, seconds: float) -> None:
        """Send it; may block, at each step for *seconds* or so.

        Raises:
            NotSent: If it was not sent for certain.
            Exception: If that is not known.
        """
        ...


Offer = Callable[[], Carrier | None]
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
