"""The threads of this process: their names, and the stacks of all but one, for lock contention."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import FrameType
from typing import Final, NamedTuple

from otel_introspect.engine.introspector import INTROSPECTOR_NAME
from otel_introspect.engine.native import get_ident
from otel_introspect.engine.stack_text import cut, one_line, resolve, utf8_length
from otel_introspect.engine.stacks import Capture, capture, outwards

_MAX_THREADS: Final = 200
_MAX_NAMES: Final = 5
_MIN_FRAMES_BYTES: Final = 160
# For the last line, which says how many groups are missing.
_NOTE_BYTES: Final = 24


def thread_name(thread_id: int) -> str:
    """The name of the thread with this ``get_ident()``; empty if ``threading`` doesn't know it.

    Reads the module's own dictionary: ``threading.enumerate()`` takes a lock that belongs to the application's threads.
    """
    thread = getattr(threading, "_active", {}).get(thread_id)
    return one_line(thread.name) if thread is not None else ""


class ThreadGroup(NamedTuple):
    """Threads that are at the identical place."""

    names: tuple[str, ...]
    capture: Capture


class OtherThreads(NamedTuple):
    """The threads beside the one that a snapshot shows, those at the identical place grouped, largest group first."""

    total: int
    groups: tuple[ThreadGroup, ...]

    def resolve(self) -> None:
        """Have the source lines ready for ``text``, which is asked for where no file should be read."""
        for group in self.groups:
            resolve(group.capture)

    def text(self, max_bytes: int) -> str:
        """For a reader: each group's names and as many innermost frames as *max_bytes* of UTF-8 have room for."""
        parts: list[str] = []
        room = max_bytes - _NOTE_BYTES if len(self.groups) > 1 else max_bytes
        for place, group in enumerate(self.groups):
            named = ", ".join(group.names[:_MAX_NAMES]) + (", ..." if len(group.names) > _MAX_NAMES else "")
            plural = "s" if len(group.names) != 1 else ""
            head = cut(f"{len(group.names)} thread{plural}: {named}", max_bytes // 4) + "\n"
            left = len(self.groups) - place
            share = max(room // left, min(room, _MIN_FRAMES_BYTES)) - utf8_length(head) - 2
            if share < _MIN_FRAMES_BYTES // 2:
                break
            block = head + resolve(group.capture).text(share)[0] + "\n\n"
            if utf8_length(block) > room:
                break
            room -= utf8_length(block)
            parts.append(block)
        missing = len(self.groups) - len(parts)
        text = "".join(parts).rstrip("\n")
        note = f"\n\n[{missing} more group{'s' if missing != 1 else ''}]"
        if missing and utf8_length(text) + utf8_length(note) <= max_bytes:
            text = (text + note).lstrip("\n")
        return cut(text, max_bytes)


def other_threads(frames: Mapping[int, FrameType], shown: int) -> OtherThreads:
    """Group the threads of *frames* by their stack, without *shown* and the introspector's own."""
    groups: dict[tuple[tuple[int, int], ...], tuple[Capture, list[str]]] = {}
    total = 0
    for thread_id, frame in frames.items():
        name = thread_name(thread_id)
        if thread_id in (shown, get_ident()) or name.startswith(INTROSPECTOR_NAME):
            continue
        total += 1
        if total > _MAX_THREADS:
            continue
        stack = capture(outwards(frame))
        groups.setdefault(stack.key(), (stack, []))[1].append(name or f"thread {thread_id}")
    ordered = sorted(groups.values(), key=lambda group: -len(group[1]))
    return OtherThreads(total, tuple(ThreadGroup(tuple(sorted(names)), stack) for stack, names in ordered))
