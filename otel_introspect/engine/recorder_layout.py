"""The flight recorder's file, byte by byte; ``docs/reference/flight-recorder-format.md`` says the same in prose.

What is wanted: a file from which another process can tell at any instant, and after a ``kill -9``, which entry spans
were open; and of which no state is ever taken for truth that was being written.

So: each part says to which span it belongs, by a number that no two spans of the process share, and each is recognised
as whole: what a request's own thread writes by that number before and after, the rest by a checksum, as it is longer.
The checksum is over that number, too: or what one span left would be taken for another's, as long as only the number
has been changed.

Everything is little-endian, and laid out like this::

    header            HEADER_SIZE bytes: what the process is, and a heartbeat
    slots             slot_count times SLOT_SIZE bytes: one open entry span each
    pages             page_count times PAGE_SIZE bytes: the evidence of those that are slow
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

MAGIC: Final = b"OTELINTR"
VERSION: Final = 1

HEADER_SIZE: Final = 16 * 1024
SLOT_SIZE: Final = 4 * 1024
PAGE_SIZE: Final = 4 * 1024
SLOT_COUNT: Final = 256
PAGE_COUNT: Final = 256
FILE_SIZE: Final = HEADER_SIZE + SLOT_COUNT * SLOT_SIZE + PAGE_COUNT * PAGE_SIZE

# --- The header -----------------------------------------------------------------------------------------------------

HEADER: Final = Struct("<8sIIIIIIQQ36s")
"""Magic, version, sizes of header and slot, number of slots, size and number of pages, pid, the process's start (in the
kernel's ticks since boot; 0 if it is not known) and the id of that boot."""
BEAT: Final = Struct("<QQQ")
"""When the introspector last said that it is alive: nanoseconds since the epoch (0 while nothing is to be looked at),
the same moment by the monotonic clock, and how many spans found no slot."""
BEAT_OFFSET: Final = 128
THRESHOLD: Final = Struct("<I")
"""How long a span may be open before it counts as slow, in milliseconds; 0 if it is not looked for such."""
THRESHOLD_OFFSET: Final = 192
BLOCK: Final = Struct("<II")
"""Length of the JSON that follows, and checksum."""
RESOURCE_OFFSET: Final = 256
RESOURCE_BYTES: Final = HEADER_SIZE - RESOURCE_OFFSET - BLOCK.size

_CHECKSUM: Final = Struct("<I")
"""The last field of each header that has one: CRC-32 of the header before it and of what follows."""

# --- A slot ---------------------------------------------------------------------------------------------------------

SPAN: Final = Struct("<Q16sQQQQBB446sQ")
"""What the thread that starts the span writes: sequence number (0: the slot is free), trace id, span id, parent's id
(0: none), start in nanoseconds since the epoch, thread id, kind, flags, texts, and the sequence number again."""
TEXT_BYTES: Final = 446
"""The span's name, the request's method and its URL path, with NUL between them; UTF-8."""
PARENT_IS_REMOTE: Final = 1
STABLE_NAMES: Final = 2
"""Whether method and path have the names of the stable semantic conventions."""

NOTE: Final = Struct("<QII")
"""What the introspector has learned later: sequence number, length of the JSON that follows, and checksum."""
NOTE_OFFSET: Final = 512
NOTE_BYTES: Final = 1024 - NOTE_OFFSET - NOTE.size

STACK: Final = Struct("<QQQBBHI")
"""The last stack that was seen: sequence number, when (nanoseconds since the epoch), thread id, observer, state of the
task, length of the text that follows, and checksum."""
STACK_OFFSET: Final = 1024
STACK_BYTES: Final = SLOT_SIZE - STACK_OFFSET - STACK.size

OBSERVERS: Final = ("thread", "signal", "faulthandler")
TASK_STATES: Final = (None, "running", "awaiting", "switched_out")
Observer = Literal["thread", "signal", "faulthandler"]

# --- A page of evidence ---------------------------------------------------------------------------------------------

PAGE: Final = Struct("<QHHI")
"""Sequence number of the span, which of its pages this is, how many bytes it holds, and checksum."""
PAGE_BYTES: Final = PAGE_SIZE - PAGE.size


def slot_offset(slot: int) -> int:
    """Where a slot begins."""
    return HEADER_SIZE + slot * SLOT_SIZE


def page_offset(page: int) -> int:
    """Where a page begins."""
    return HEADER_SIZE + SLOT_COUNT * SLOT_SIZE + page * PAGE_SIZE


class Frame(NamedTuple):
    """One frame of a stack, as text."""

    function: str
    file: str
    line: int


def sealed(header: Struct, fields: tuple[int, ...], content: bytes) -> bytes:
    """*content* behind a header of these *fields* and the checksum of both."""
    packed = header.pack(*fields, 0)
    return packed[: -_CHECKSUM.size] + _CHECKSUM.pack(_checksum(packed, content)) + content


def is_whole(header: bytes, content: bytes) -> bool:
    """Whether the checksum at the end of *header* is the one of both."""
    (found,) = _CHECKSUM.unpack(header[-_CHECKSUM.size :])
    return bool(found == _checksum(header, content))


def _checksum(header: bytes, content: bytes) -> int:
    return crc32(content, crc32(header[: -_CHECKSUM.size]))


def json_text(content: Mapping[str, Any], room: int) -> bytes:
    """*content* as JSON; what does not fit is left out, the longest values first."""
    left = dict(content)
    while True:
        encoded = json.dumps(left, separators=(",", ":"), default=str).encode("ascii")
        if len(encoded) <= room:
            return encoded
        del left[max(left, key=lambda key: len(key) + len(str(left[key])))]


def stack_text(frames: list[Frame], room: int) -> bytes:
    """*frames*, innermost first, a line each, as many as there is room for."""
    lines, size = [], 0
    for function, file, line in frames:
        encoded = f"{line}\t{function}\t{file}\n".encode("utf-8", "backslashreplace")
        size += len(encoded)
        if size > room:
            break
        lines.append(encoded)
    return b"".join(lines)
