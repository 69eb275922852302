"""One thing that was found out about an environment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; a slow request still gets its evidence."""
    PROBLEM = "problem"
    """A slow request does not get its evidence, or it does not arrive, or a setting does not do what it says."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what the doctor says.

    Args:
        level: How much it matters.
        topic: What it is about, in one word.
        message: What was found, and what was expected if that is something else. One sentence or two.
        remedy: What to do about it.
    """

    level: Level
    topic: str
    message: str
    remedy: str = ""


def ok(topic: str, message: str) -> Finding:
    """A finding that is as it should be."""
    return Finding(level=Level.OK, topic=topic, message=message)


def note(topic: str, message: str, remedy: str = "") -> Finding:
    """A finding that is worth knowing."""
    return Finding(level=Level.NOTE, topic=topic, message=message, remedy=remedy)


def problem(topic: str, message: str, remedy: str) -> Finding:
    """A finding to do something about: there is none without a remedy."""
    return Finding(level=Level.PROBLEM, topic=topic, message=message, remedy=remedy)
