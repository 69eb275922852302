"""A mail, and what carries it: an SMTP server of one's own, or a framework's way to send mails (see ``offers``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


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
