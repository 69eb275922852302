"""Where finished evidence goes: a span event, a log record, or both."""

from __future__ import annotations

from typing import Protocol

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue


class Sink(Protocol):
    """Takes one piece of evidence about one span."""

    def emit(self, span: Span, name: str, attributes: dict[str, AttributeValue], timestamp: int) -> bool:
        """Put it there, at once.

        Args:
            span: What the evidence is about; it stays as it is during the call; open, unless the sink ``takes_ended``.
            name: The event's name.
            attributes: Bounded already.
            timestamp: Nanoseconds since the epoch.

        Returns:
            Whether there was room for it.
        """
        ...
