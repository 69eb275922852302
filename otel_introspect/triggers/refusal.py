"""Why a profile that was asked for is not taken."""

from __future__ import annotations

from typing import Literal

from otel_introspect.faults import count

Reason = Literal[
    "no-key",
    "unsigned",
    "malformed",
    "bad-signature",
    "expired",
    "not-yet-valid",
    "replayed",
    "not-allowed",
    "busy",
    "rate",
    "off",
    "not-recorded",
    "failed",
]
"""What the answer's header says: part of the contract.

``no-key``: no key is set, so that nothing remote can start a profile. ``unsigned``: there is no token. ``malformed``,
``bad-signature``, ``expired``, ``not-yet-valid``, ``replayed``: there is one, and that is wrong with it.
``not-allowed``: ``PROFILER_ALLOW`` says no. ``busy``: an explicit profile is being taken. ``rate``: there have been too
many. ``off``: the trigger ``request`` is not on, or nothing is watched. ``not-recorded``: the request's span is not
sampled. ``failed``: a fault of our own.
"""


class Refused(Exception):  # noqa: N818 - a refusal is no error of anybody's
    """A profile is not taken.

    Args:
        reason: Why.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def refuse(reason: Reason) -> Refused:
    """Count a refusal, and make what is to be raised for it."""
    count("refused", f"profile: {reason}")
    return Refused(reason)
