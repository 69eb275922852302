"""The format's page in ``docs/`` says the same as the code."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

import pytest

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.recorder_directory import CLAIMED_SUFFIX, DUMP_SUFFIX, MAKING_SUFFIX, SUFFIX

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "flight-recorder-format.md").read_text()
ROW = re.compile(r"^\| (\d+) \| (at most )?(\d+) \| (\w[\w-]*) \| ([^|]+?) \| ?([^|]*?) ?\|$", re.MULTILINE)
SIZES = {"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8}
CODES = {"B": "uint8", "H": "uint16", "I": "uint32", "Q": "uint64", "s": ""}


def section(title):
    return re.split(r"^#+ ", PAGE.partition(f"### {title}\n")[2], flags=re.MULTILINE)[0]


def rows(title):
    """Offset, number of bytes, type, field and meaning of each field in a section."""
    return [
        (int(offset), int(size), kind, field, said)
        for offset, _, size, kind, field, said in ROW.findall(section(title))
    ]


def fields_of(struct, start):
    """Offset, number of bytes and type of each field of a structure."""
    found, offset = [], start
    for repeat, code in re.findall(r"(\d*)([a-zA-Z])", struct.format):
        for _ in range(1 if code == "s" else int(repeat or 1)):
            size = int(repeat) if code == "s" else SIZES[CODES[code]]
            found.append((offset, size, CODES[code]))
            offset += size
    assert offset == start + struct.size
    return found


@pytest.mark.parametrize(
    ("title", "structs", "rooms"),
    [
        (
            "The header",
            [
                (layout.HEADER, 0),
                (layout.BEAT, layout.BEAT_OFFSET),
                (layout.THRESHOLD, layout.THRESHOLD_OFFSET),
                (layout.BLOCK, layout.RESOURCE_OFFSET),
            ],
            {layout.RESOURCE_OFFSET + layout.BLOCK.size: layout.RESOURCE_BYTES},
        ),
        (
            "A slot",
            [(layout.SPAN, 0), (layout.NOTE, layout.NOTE_OFFSET), (layout.STACK, layout.STACK_OFFSET)],
            {
                layout.NOTE_OFFSET + layout.NOTE.size: layout.NOTE_BYTES,
                layout.STACK_OFFSET + layout.STACK.size: layout.STACK_BYTES,
            },
        ),
        ("A page", [(layout.PAGE, 0)], {layout.PAGE.size: layout.PAGE_BYTES}),
    ],
)
def test_every_field(title, structs, rooms):
    """
    Each field stands on the page with its offset, size and type, and none that there is not.
    """
    written = {offset: (size, kind if kind in SIZES else "") for offset, size, kind, _, _ in rows(title)}
    expected = {offset: (size, kind) for struct, start in structs for offset, size, kind in fields_of(struct, start)}
    expected |= {offset: (room, "") for offset, room in rooms.items()}

    assert written == expected


def test_no_field_is_in_another_one_s_place():
    """
    The parts of the header, a slot and a page do not overlap, and end where these end.
    """
    for title, size in (
        ("The header", layout.HEADER_SIZE),
        ("A slot", layout.SLOT_SIZE),
        ("A page", layout.PAGE_SIZE),
    ):
        end = 0
        for offset, length, *_ in rows(title):
            assert offset >= end, title
            end = offset + length
        assert end == size


def test_the_parts():
    """
    Header, slots and pages are where the page says, and all of it is as large.
    """
    found = re.findall(r"^\| (header|\d+ slots|\d+ pages) \| (\d+) \| (\d+)", PAGE, re.MULTILINE)

    assert found == [
        ("header", "0", str(layout.HEADER_SIZE)),
        (f"{layout.SLOT_COUNT} slots", str(layout.slot_offset(0)), str(layout.SLOT_SIZE)),
        (f"{layout.PAGE_COUNT} pages", str(layout.page_offset(0)), str(layout.PAGE_SIZE)),
    ]
    assert layout.page_offset(layout.PAGE_COUNT) == layout.FILE_SIZE
    assert PAGE.count(f"{layout.FILE_SIZE:,} bytes") == 2


def test_values():
    """
    Magic, version, sizes, observers, states and flags are those of the code.
    """
    said = {field: meaning for title in ("The header", "A slot") for *_, field, meaning in rows(title)}

    assert said["magic"] == f"`{layout.MAGIC.decode()}`"
    assert PAGE.startswith(f"# The flight recorder's file, version {layout.VERSION}\n")
    assert said["version"] == str(layout.VERSION)
    sizes = ("header size", "slot size", "number of slots", "page size", "number of pages")
    assert [int(said[each]) for each in sizes] == [
        layout.HEADER_SIZE,
        layout.SLOT_SIZE,
        layout.SLOT_COUNT,
        layout.PAGE_SIZE,
        layout.PAGE_COUNT,
    ]
    assert said["stack: observer"] == ", ".join(f"{at} `{each}`" for at, each in enumerate(layout.OBSERVERS))
    states = [f"{at} `{each}`" if each else f"{at} none" for at, each in enumerate(layout.TASK_STATES)]
    assert said["stack: state of the task"] == ", ".join(states)
    assert said["flags"].startswith(
        f"{layout.PARENT_IS_REMOTE}: the parent is remote; {layout.STABLE_NAMES}: method and"
    )


@pytest.mark.parametrize("suffix", [SUFFIX, MAKING_SUFFIX, CLAIMED_SUFFIX, DUMP_SUFFIX])
def test_names(suffix):
    """
    Every kind of file in the directory is named.
    """
    assert f"{suffix}` |" in PAGE


def test_a_checksum_is_over_the_header_too():
    """
    The same content behind another number has another checksum.
    """
    struct = Struct("<QI")
    one, other = (layout.sealed(struct, (number,), b"content") for number in (1, 2))

    assert one[-len(b"content") - 4 :] != other[-len(b"content") - 4 :]
    assert layout.is_whole(one[:12], b"content")
    assert not layout.is_whole(one[:12], b"contents")
    assert not layout.is_whole(other[:8] + one[8:12], b"content")
