"""A session from pyinstrument's JSON, checked: what gets through breaks no renderer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_introspect.profiling.renderable import Record
from otel_introspect.profiling.retrieval import ReadError, shown

if TYPE_CHECKING:
    from pyinstrument.session import Session

FRAME_RECORDS: Final = "frame_records"
"""What tells a session from any other JSON object."""

_MAX_TIME: Final = 253_402_300_800.0  # the year 10,000, which no calendar of Python's reaches
# Each path that is shown is compared with all of them.
_MAX_PATHS: Final = 1_000
_REMEDY: Final = "Expected a profile as pyinstrument saves it (.pyisession), or as the profiler's store keeps it"


def session_of(document: Mapping[str, Any], source: str) -> Session:
    """The session in a JSON object.

    Args:
        document: What has been read.
        source: Where from, for a message.

    Raises:
        ReadError: If it is none.
    """
    from pyinstrument.session import Session

    reader = _Reader(document, source)
    records = reader.records()
    start = reader.number("start_time", 0.0)
    interval = reader.number("min_interval", 0.001)
    total = sum(seconds for _, seconds in records)
    return Session(
        frame_records=records,
        start_time=start,
        duration=reader.number("duration", total),
        min_interval=interval,
        max_interval=reader.number("max_interval", interval),
        sample_count=int(reader.number("sample_count", len(records))),
        # pyinstrument takes the first of them without looking whether there is one.
        start_call_stack=reader.strings("start_call_stack") or [""],
        target_description=reader.string("target_description"),
        cpu_time=reader.number("cpu_time", 0.0),
        sys_path=reader.strings("sys_path")[:_MAX_PATHS],
        sys_prefixes=reader.strings("sys_prefixes")[:_MAX_PATHS],
    )


class _Reader:
    """Takes one thing after the other out of a JSON object; what is missing or null is what the caller says."""

    def __init__(self, document: Mapping[str, Any], source: str) -> None:
        self._document = document
        self._source = source

    def records(self) -> list[Record]:
        """The samples; equal frames are one string, as JSON has each of them as often as it was seen."""
        found = self._document.get(FRAME_RECORDS)
        if not isinstance(found, list):
            raise self._wrong(FRAME_RECORDS, "a list of samples")
        known: dict[str, str] = {}
        records: list[Record] = []
        for each in found:
            if not isinstance(each, list) or len(each) != 2:  # noqa: PLR2004 - a pair
                raise self._wrong(FRAME_RECORDS, "a list of pairs, each of a stack and its seconds")
            stack, seconds = each
            if not isinstance(stack, list) or not all(isinstance(frame, str) for frame in stack):
                raise self._wrong(FRAME_RECORDS, "stacks that are lists of strings")
            number = _number(seconds)
            if number is None:
                raise self._wrong(FRAME_RECORDS, "the seconds of each stack as a number of 0 or more")
            records.append(([known.setdefault(frame, frame) for frame in stack], number))
        return records

    def number(self, name: str, missing: float) -> float:
        value = self._document.get(name)
        number = missing if value is None else _number(value)
        if number is None:
            raise self._wrong(name, "a number of 0 or more")
        return number

    def string(self, name: str) -> str:
        value = self._document.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def strings(self, name: str) -> list[str]:
        value = self._document.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._wrong(name, "a list of strings")
        return value

    def _wrong(self, name: str, expected: str) -> ReadError:
        return ReadError(f"{shown(self._source)} is not a profile: {name} is not {expected}. {_REMEDY}")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and 0 <= number < _MAX_TIME else None
