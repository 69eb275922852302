"""Reads a flight recorder's file, of a process that lives or that is dead; takes nothing that is in it on trust.

Any bytes may be in such a file: its process may have died in the midst of writing, or somebody else has written it.
So every number in it is checked before it is used, and nothing is larger than it may be. What is not whole is left out.

A file of a live process changes while it is read: a slot counts only if two readings of it agree.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple, TypeGuard

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.recorder_layout import Frame

if sys.platform != "win32":
    import fcntl

_MAX_EVENTS: Final = 64
_MAX_FRAMES: Final = 128
_MAX_DIGITS: Final = 10
_KINDS: Final = range(5)
_SCALARS: Final = (str, bool, int, float)
_TOO_LARGE: Final = 2**63


class UnreadableRecord(Exception):  # noqa: N818 - reads as what it is
    """A file that is no flight recorder's, or none that this version can read; the message says which."""


class SeenStack(NamedTuple):
    """Where a span was last seen.

    Args:
        taken: Nanoseconds since the epoch.
        thread_id: The thread that it was on; 0 if that is not known.
        observer: Who saw it.
        task_state: What its task did, where it runs in one.
        frames: Innermost first.
    """

    taken: int
    thread_id: int
    observer: str
    task_state: str | None
    frames: tuple[Frame, ...]


class RecordedEvent(NamedTuple):
    """A piece of evidence that was put on a span."""

    name: str
    timestamp: int
    attributes: dict[str, Any]


class OpenSpan(NamedTuple):
    """An entry span that was open.

    Args:
        trace_id: Of it.
        span_id: Of it.
        parent_id: None if it has no parent.
        parent_is_remote: Whether that is in another process.
        start: Nanoseconds since the epoch.
        thread_id: The thread that started it.
        kind: OpenTelemetry's number for it.
        name: As it was last known.
        attributes: Those that were written down: method, route, path.
        stack: Where it was last seen; None if nobody looked.
        events: What had been put on it.
    """

    trace_id: int
    span_id: int
    parent_id: int | None
    parent_is_remote: bool
    start: int
    thread_id: int
    kind: int
    name: str
    attributes: dict[str, Any]
    stack: SeenStack | None
    events: tuple[RecordedEvent, ...]


class FlightRecord(NamedTuple):
    """What a file says.

    Args:
        path: The file.
        pid: Of the process.
        process_start: In the kernel's ticks since boot; 0 if it is not known.
        boot_id: Which boot that was.
        resource: What the process is, as the attributes of an OpenTelemetry resource.
        beat: When the introspector's thread last was alive, in nanoseconds since the epoch; None while it idles.
        beat_monotonic: The same moment by the machine's monotonic clock, in nanoseconds.
        overflowed: How many spans found no slot.
        spans: Those that were open.
        modified: When the file was last written to, as far as the file system knows, in nanoseconds since the epoch.
        threshold_ms: How long a span may be open there before it counts as slow; 0 if it is not looked for such.
    """

    path: Path
    pid: int
    process_start: int
    boot_id: str
    resource: dict[str, Any]
    beat: int | None
    beat_monotonic: int
    overflowed: int
    spans: tuple[OpenSpan, ...]
    modified: int
    threshold_ms: int = 0


def read_record(path: Path, *, alive: bool = False) -> FlightRecord:
    """Read a file; twice if its process is *alive*.

    Raises:
        UnreadableRecord: If it is not whole, of another version, not a regular file or of another user.
        OSError: If it can't be read.
    """
    data, modified = _bytes_of(path)
    again = _bytes_of(path)[0] if alive else data
    return parse_record(path, data, again, modified)


def parse_record(path: Path, data: bytes, again: bytes, modified: int = 0) -> FlightRecord:
    """Make sense of a file's content, read twice.

    Raises:
        UnreadableRecord: If it is not whole or of another version.
    """
    if len(data) < layout.HEADER_SIZE or data[: len(layout.MAGIC)] != layout.MAGIC:
        why = "it is no flight recorder's file, or not a whole one"
        raise UnreadableRecord(why)
    _, version, header_size, slot_size, slots, page_size, pages, pid, started, boot = layout.HEADER.unpack_from(data)
    if version != layout.VERSION:
        why = f"it has the format of version {version}, and this program reads version {layout.VERSION}"
        raise UnreadableRecord(why)
    sizes = (header_size, slot_size, slots, page_size, pages)
    if sizes != (layout.HEADER_SIZE, layout.SLOT_SIZE, layout.SLOT_COUNT, layout.PAGE_SIZE, layout.PAGE_COUNT):
        why = "its sizes are not those of this version"
        raise UnreadableRecord(why)
    beat, monotonic, overflowed = layout.BEAT.unpack_from(data, layout.BEAT_OFFSET)
    (threshold_ms,) = layout.THRESHOLD.unpack_from(data, layout.THRESHOLD_OFFSET)
    evidence = _evidence(data)
    spans = []
    for slot in range(layout.SLOT_COUNT):
        offset = layout.slot_offset(slot)
        end = offset + layout.SPAN.size
        if end <= len(data) and data[offset:end] == again[offset:end]:
            span = _span(data, offset, evidence)
            if span is not None:
                spans.append(span)
    return FlightRecord(
        path=path,
        pid=pid,
        process_start=started,
        boot_id=_text(boot.rstrip(b"\0")),
        resource=_resource(data),
        beat=beat or None,
        beat_monotonic=monotonic,
        overflowed=overflowed,
        spans=tuple(sorted(spans, key=lambda span: span.start)),
        modified=modified,
        threshold_ms=threshold_ms,
    )


def is_alive(path: Path) -> bool:
    """Whether the file's process lives: it has it locked.

    Raises:
        OSError: If it can't be opened.
    """
    file = open_file(path)
    try:
        # To share it: two who ask at the same time do not take each other for its process.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def open_file(path: Path) -> int:
    """Open it for reading; neither led astray by a link nor waiting for the other end of a pipe.

    Raises:
        OSError: If it can't be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def check_owner(status: os.stat_result) -> None:
    """See to it that a file is a regular one, of this user's own or of root's.

    Raises:
        UnreadableRecord: If it is not.
    """
    if not stat.S_ISREG(status.st_mode):
        why = "it is not a regular file"
        raise UnreadableRecord(why)
    if os.geteuid() != 0 and status.st_uid != os.geteuid():
        why = f"it belongs to another user ({status.st_uid})"
        raise UnreadableRecord(why)


def _bytes_of(path: Path) -> tuple[bytes, int]:
    file = open_file(path)
    try:
        status = os.fstat(file)
        check_owner(status)
        return content_of(file), status.st_mtime_ns
    finally:
        os.close(file)


def content_of(file: int) -> bytes:
    """What is in an open file, of which nothing has been read yet, as far as it can be a flight recorder's.

    Raises:
        OSError: If it can't be read.
    """
    parts, left = [], layout.FILE_SIZE
    while left and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _span(data: bytes, offset: int, evidence: dict[int, dict[int, bytes]]) -> OpenSpan | None:
    sequence, trace, span_id, parent, start, thread_id, kind, flags, texts, last = layout.SPAN.unpack_from(data, offset)
    trace_id = int.from_bytes(trace, "big")
    if not sequence or sequence != last or not trace_id or not span_id or kind not in _KINDS:
        return None
    name, _, others = texts.rstrip(b"\0").partition(b"\0")
    method, _, path = others.partition(b"\0")
    is_stable = bool(flags & layout.STABLE_NAMES)
    attributes: dict[str, Any] = {}
    if method:
        attributes["http.request.method" if is_stable else "http.method"] = _text(method)
    if path:
        attributes["url.path" if is_stable else "http.target"] = _text(path)
    note = _note(data, offset, sequence)
    known_name = note.get("name")
    attributes.update(_attributes(note.get("attributes")))
    return OpenSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent or None,
        parent_is_remote=bool(flags & layout.PARENT_IS_REMOTE),
        start=start,
        thread_id=thread_id,
        kind=kind,
        name=_clean(known_name) if isinstance(known_name, str) and known_name else _text(name),
        attributes=attributes,
        stack=_stack(data, offset, sequence),
        # Taken out, as no two spans share a number: or a forged file could have them read for each slot.
        events=tuple(_events(evidence.pop(sequence, {}))),
    )


def _note(data: bytes, slot: int, sequence: int) -> dict[str, Any]:
    offset = slot + layout.NOTE_OFFSET
    if offset + layout.NOTE.size > len(data):
        return {}
    owner, length, _ = layout.NOTE.unpack_from(data, offset)
    if owner != sequence:
        return {}
    return _json(_content(data, layout.NOTE, offset, length, layout.NOTE_BYTES))


def _stack(data: bytes, slot: int, sequence: int) -> SeenStack | None:
    offset = slot + layout.STACK_OFFSET
    if offset + layout.STACK.size > len(data):
        return None
    owner, taken, thread_id, observer, state, length, _ = layout.STACK.unpack_from(data, offset)
    text = _content(data, layout.STACK, offset, length, layout.STACK_BYTES)
    if owner != sequence or text is None:
        return None
    if observer >= len(layout.OBSERVERS) or state >= len(layout.TASK_STATES):
        return None
    frames = []
    for line in text.splitlines()[:_MAX_FRAMES]:
        number, _, rest = line.partition(b"\t")
        function, _, file = rest.partition(b"\t")
        if number.isdigit() and len(number) < _MAX_DIGITS:
            frames.append(Frame(_text(function), _text(file), int(number)))
    return SeenStack(taken, thread_id, layout.OBSERVERS[observer], layout.TASK_STATES[state], tuple(frames))


def _evidence(data: bytes) -> dict[int, dict[int, bytes]]:
    """The content of each whole page, by span and number."""
    found: dict[int, dict[int, bytes]] = {}
    for page in range(layout.PAGE_COUNT):
        offset = layout.page_offset(page)
        if offset + layout.PAGE.size > len(data):
            break
        sequence, number, used, _ = layout.PAGE.unpack_from(data, offset)
        content = _content(data, layout.PAGE, offset, used, layout.PAGE_BYTES) if sequence else None
        if content is not None:
            found.setdefault(sequence, {})[number] = content
    return found


def _events(pages: dict[int, bytes]) -> Iterator[RecordedEvent]:
    stream = []
    for number in range(len(pages)):
        if number not in pages:
            break
        stream.append(pages[number])
    for line in b"".join(stream).split(b"\n")[:_MAX_EVENTS]:
        with suppress(ValueError, RecursionError):
            record = json.loads(line)
            if not isinstance(record, dict):
                continue
            name, timestamp, attributes = record.get("name"), record.get("time"), record.get("attributes")
            if isinstance(name, str) and _is_time(timestamp) and isinstance(attributes, dict):
                yield RecordedEvent(_clean(name), timestamp, _attributes(attributes))


def _resource(data: bytes) -> dict[str, Any]:
    length, _ = layout.BLOCK.unpack_from(data, layout.RESOURCE_OFFSET)
    return _attributes(_json(_content(data, layout.BLOCK, layout.RESOURCE_OFFSET, length, layout.RESOURCE_BYTES)))


def _content(data: bytes, header: Struct, offset: int, length: int, room: int) -> bytes | None:
    """What follows the *header* at *offset*; None if it is not whole."""
    start = offset + header.size
    content = data[start : start + min(length, room)]
    return content if layout.is_whole(data[offset:start], content) else None


def _json(encoded: bytes | None) -> dict[str, Any]:
    if encoded is None:
        return {}
    with suppress(ValueError, RecursionError):
        found = json.loads(encoded)
        if isinstance(found, dict):
            return found
    return {}


def _attributes(found: object) -> dict[str, Any]:
    """What OpenTelemetry would take of it: strings, numbers and booleans, and lists of such of one kind."""
    if not isinstance(found, dict):
        return {}
    return {_clean(key): _clean(value) for key, value in found.items() if key and _is_attribute(value)}


def _is_attribute(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_scalar(each) for each in value) and len({type(each) for each in value}) <= 1
    return _is_scalar(value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, _SCALARS) and not (isinstance(value, int) and abs(value) >= _TOO_LARGE)


def _clean(value: Any) -> Any:  # noqa: ANN401 - an attribute's value
    """Without lone surrogates: one makes an exporter lose its whole batch."""
    if isinstance(value, list):
        return [_clean(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _is_time(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "replace")
