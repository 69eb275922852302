"""A file for speedscope, as pyinstrument writes it, mended where it is not what speedscope's schema asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otel_introspect.profiling.renderable import Record, identifier_of, renderable

if TYPE_CHECKING:
    from pyinstrument.session import Session


def speedscope_file(session: Session) -> bytes:
    """The timeline of *session* in speedscope's JSON."""
    from pyinstrument.renderers import SpeedscopeRenderer

    whole = renderable(session, timeline=True)
    # Line and class of a sample are not shown; without them equal stacks are told to be equal.
    whole.frame_records = _without_attributes(whole.frame_records)
    # All: by default a call of less than 1 % of the whole time is left out, and on a timeline that is most of them.
    document: dict[str, Any] = json.loads(SpeedscopeRenderer(show_all=True).render(renderable(whole, timeline=True)))
    # In the schema these may be left out, but not be null.
    if document.get("activeProfileIndex") is None:
        document.pop("activeProfileIndex", None)
    document["shared"]["frames"] = [
        {name: value for name, value in frame.items() if value is not None} for frame in document["shared"]["frames"]
    ]
    for profile in document["profiles"]:
        # The samples' times may add up to more than the duration, by rounding or because threads were put together.
        profile["endValue"] = max([profile["endValue"], *(event["at"] for event in profile["events"][-1:])])
    return json.dumps(document).encode()


def _without_attributes(records: list[Record]) -> list[Record]:
    return [([identifier_of(frame) for frame in stack], seconds) for stack, seconds in records]
