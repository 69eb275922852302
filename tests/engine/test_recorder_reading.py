"""Reading flight recorders' files: what is whole is read, what is not is left out, and nothing else is ever raised."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorders import PATIENCE, START, Script, begin, parsed, recorder_in, whole_file

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.recorder_reading import (
    OpenSpan,
    UnreadableRecord,
    is_alive,
    parse_record,
    read_record,
)

FUZZER = Path(__file__).parent.parent / "fuzz" / "fuzz_flight_recorder.py"
SECOND = layout.slot_offset(1)


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory):
    """The content of a good file; see ``whole_file``."""
    return whole_file(tmp_path_factory.mktemp("whole") / "flight")


def changed(data, offset, new):
    return data[:offset] + new + data[offset + len(new) :]


def keys(record):
    return [span.span_id for span in record.spans]


def test_a_whole_file(whole):
    """
    Every open span is there with what is known of it, the oldest first.
    """
    record = parsed(whole)

    assert keys(record) == [1, 2, 3]
    second = record.spans[1]
    assert (second.name, second.attributes["http.route"], second.stack.task_state) == (
        "GET /<int>",
        "/<int>",
        "awaiting",
    )
    assert [event.name for event in second.events] == ["small", "large"]
    assert record.spans[0].events == record.spans[2].events == ()


# --- What is not whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "new"),
    [
        (0, b"\0" * 8),
        (layout.SPAN.size - 8, b"\0" * 8),
        (0, (99).to_bytes(8, "little")),
        (layout.SPAN.size - 8, (99).to_bytes(8, "little")),
        (8, b"\0" * 16),
        (24, b"\0" * 8),
        (56, b"\x05"),
    ],
    ids=["free", "begun", "other before", "other after", "no trace id", "no span id", "no such kind"],
)
def test_a_slot_that_is_torn(whole, offset, new):
    """
    A slot whose writer was killed between the two numbers, or that makes no sense, is left out; the others are there.
    """
    assert keys(parsed(changed(whole, SECOND + offset, new))) == [1, 3]


@pytest.mark.parametrize("offset", [0, 8, 20, 40, 100, layout.SPAN.size - 1])
def test_a_slot_that_changes_while_it_is_read(whole, offset):
    """
    A slot that two readings do not show alike is left out.
    """
    again = changed(whole, SECOND + offset, bytes([whole[SECOND + offset] ^ 1]))

    assert keys(parse_record(Path("x"), whole, again)) == [1, 3]


@pytest.mark.parametrize("offset", range(0, layout.NOTE.size + 30, 3))
def test_a_note_that_is_torn(whole, offset):
    """
    A note of which any byte is wrong is left out, and the span is there.
    """
    offset += SECOND + layout.NOTE_OFFSET
    span = parsed(changed(whole, offset, bytes([whole[offset] ^ 0xFF]))).spans[1]

    assert (span.name, "http.route" in span.attributes) == ("GET /2", False)


@pytest.mark.parametrize("offset", range(0, layout.STACK.size + 30, 3))
def test_a_stack_that_is_torn(whole, offset):
    """
    A stack of which any byte is wrong, its time and thread among them, is left out, and the span is there.
    """
    offset += SECOND + layout.STACK_OFFSET
    span = parsed(changed(whole, offset, bytes([whole[offset] ^ 0xFF]))).spans[1]

    assert span.stack is None
    assert span.name == "GET /<int>"


@pytest.mark.parametrize(("page", "left"), [(0, []), (1, ["small"]), (2, ["small"])])
@pytest.mark.parametrize("offset", [*range(layout.PAGE.size), layout.PAGE.size + 5])
def test_a_page_that_is_torn(whole, page, left, offset):
    """
    Events of which any part is wrong are left out, and those before them are there.
    """
    # Pages are given out from the first one on.
    offset += layout.page_offset(page)
    events = parsed(changed(whole, offset, bytes([whole[offset] ^ 0xFF]))).spans[1].events

    assert [event.name for event in events] == left


@pytest.mark.parametrize("kind", ["note", "stack", "page"])
def test_only_the_number_is_new(whole, kind):
    """
    A part of which just the span's number has been changed is not taken for the new span's.
    """
    offset = {
        "note": layout.slot_offset(0) + layout.NOTE_OFFSET,
        "stack": layout.slot_offset(0) + layout.STACK_OFFSET,
        "page": layout.page_offset(0),
    }[kind]
    source = {"note": SECOND + layout.NOTE_OFFSET, "stack": SECOND + layout.STACK_OFFSET, "page": offset}[kind]
    forged = (1).to_bytes(8, "little") + whole[source + 8 : source + 1024]
    first = parsed(changed(whole, offset, forged)).spans[0]

    assert (first.name, first.stack, first.events) == ("GET /1", None, ())


def test_a_writer_that_dies_while_it_adds_an_event(tmp_path, monkeypatch):
    """
    Events that were there before stay, however far the writing of the next one has come.
    """
    recorder = recorder_in(tmp_path / "flight")
    recorder.open()
    begin(recorder, 1)
    recorder.add_event(1, "before", {}, START)
    before = recorder.path.read_bytes()
    recorder.add_event(1, "after", {"text": "x" * 6000}, START)
    after = recorder.path.read_bytes()
    recorder.close()
    different = [index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    first_page = layout.page_offset(0)
    content = [each for each in different if first_page + layout.PAGE.size <= each < first_page + layout.PAGE_SIZE]

    for end in (content[0], content[len(content) // 2], content[-1] + 1):
        names = [event.name for event in parsed(before[:end] + after[end:first_page] + before[end:]).spans[0].events]
        torn = changed(before, content[0], after[content[0] : end])
        assert [event.name for event in parsed(torn).spans[0].events] == ["before"]
        assert names == ["before"]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (layout.HEADER_SIZE, []),
        (SECOND + layout.SPAN.size - 1, [1]),
        (SECOND + layout.SPAN.size, [1, 2]),
        (SECOND + layout.NOTE_OFFSET + 5, [1, 2]),
        (SECOND + layout.STACK_OFFSET + 5, [1, 2]),
        (layout.page_offset(0) + 5, [1, 2, 3]),
        (layout.page_offset(1) - 5, [1, 2, 3]),
    ],
)
def test_a_file_that_is_cut_short(whole, length, expected):
    """
    What is still there is read.
    """
    assert keys(parsed(whole[:length])) == expected


# --- What is none of ours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no flight recorder's file"),
        (b"\0" * layout.FILE_SIZE, "no flight recorder's file"),
        (layout.MAGIC, "not a whole one"),
        (b"GIF89a" * 100_000, "no flight recorder's file"),
    ],
)
def test_something_else(data, words):
    """
    A file without a header of ours is none, and the message says so.
    """
    with pytest.raises(UnreadableRecord, match=words):
        parsed(data)


def test_a_newer_version(whole):
    """
    A file of another version is not read, and the message names both.
    """
    with pytest.raises(UnreadableRecord, match="version 2, and this program reads version 1"):
        parsed(changed(whole, len(layout.MAGIC), b"\x02"))


@pytest.mark.parametrize("field", range(5))
@pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
def test_other_sizes(whole, field, value):
    """
    A file whose sizes are not this version's is not read: nothing is made of a size that a file says.
    """
    with pytest.raises(UnreadableRecord, match="sizes"):
        parsed(changed(whole, len(layout.MAGIC) + 4 + 4 * field, value.to_bytes(4, "little")))


@pytest.fixture(name="path")
def _path(tmp_path, whole):
    path = tmp_path / "1-2-3.flight"
    path.write_bytes(whole)
    return path


def test_a_link(tmp_path, path):
    """
    A symbolic link is not followed.
    """
    link = tmp_path / "link.flight"
    link.symlink_to(path)

    for look in (read_record, is_alive):
        with pytest.raises(OSError, match="symbolic links"):
            look(link)


def test_a_pipe_and_a_directory(tmp_path):
    """
    Neither is read, and nobody waits for the other end of a pipe.
    """
    os.mkfifo(tmp_path / "pipe.flight")
    (tmp_path / "folder.flight").mkdir()

    for name in ("pipe.flight", "folder.flight"):
        with pytest.raises(UnreadableRecord, match="not a regular file"):
            read_record(tmp_path / name)
        assert not is_alive(tmp_path / name)


def test_another_user_s_file(path, monkeypatch):
    """
    Nothing is believed of a file that is not this user's own, unless this user is root.
    """
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UnreadableRecord, match=f"belongs to another user \\({owner}\\)"):
        read_record(path)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert keys(read_record(path)) == [1, 2, 3]


def test_a_sparse_file_of_any_size(path):
    """
    No more is read than such a file can have.
    """
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    record = read_record(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert keys(record) == [1, 2, 3]
    assert peak < 10 * layout.FILE_SIZE


# --- What is not to be believed -------------------------------------------------------------------------------------


def with_page(whole, number, line, sequence=1):
    """*whole* with another page of events."""
    sealed = layout.sealed(layout.PAGE, (sequence, number, len(line)), line)
    return changed(whole, layout.page_offset(10 + number), sealed)


@pytest.mark.parametrize(
    "line",
    [
        b"\n\n\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"name": 1, "time": 2, "attributes": {}}\n',
        b'{"name": "n", "time": -1, "attributes": {}}\n',
        b'{"name": "n", "time": true, "attributes": {}}\n',
        b'{"name": "n", "time": 1e999, "attributes": {}}\n',
        b'{"name": "n", "time": 99999999999999999999, "attributes": {}}\n',
        b'{"name": "n", "time": 1, "attributes": []}\n',
        b"[" * 4000,
        b'{"a":' * 800,
        b"9" * 4000,
        b"\xff\xfe{}",
        b'{"name": "n", "time": 1, "attributes": {',
    ],
)
def test_an_event_that_is_none(whole, line):
    """
    What is no event is left out, whatever it is.
    """
    assert parsed(with_page(whole, 0, line)).spans[0].events == ()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('{"a": {"b": 1}, "c": 1}', {"c": 1}),
        ('{"a": [1, "b"], "c": [1, 2], "d": []}', {"c": [1, 2], "d": []}),
        ('{"a": null, "b": [null], "c": [[1]]}', {}),
        ('{"a": 9223372036854775807, "b": 9223372036854775808, "c": -1}', {"a": 9223372036854775807, "c": -1}),
        ('{"\\ud800": "\\udfff", "": 1}', {"\\ud800": "\\udfff"}),
    ],
)
def test_attributes_that_are_none(whole, attributes, expected):
    """
    Only what OpenTelemetry takes for an attribute, and every exporter can send, is left.
    """
    line = f'{{"name": "n", "time": 1, "attributes": {attributes}}}\n'.encode()

    assert parsed(with_page(whole, 0, line)).spans[0].events[0].attributes == expected


def test_events_without_end(whole):
    """
    No more than 64 events of a span are read.
    """
    line = b'{"name":"n","time":1,"attributes":{}}\n' * 100

    assert len(parsed(with_page(whole, 0, line)).spans[0].events) == 64


def test_evidence_is_read_once(whole):
    """
    Slots that all claim to be of one span do not multiply its evidence.
    """
    slot = whole[SECOND : SECOND + layout.SPAN.size]
    for number in range(layout.SLOT_COUNT):
        whole = changed(whole, layout.slot_offset(number), slot)
    spans = parsed(whole).spans

    assert sum(len(span.events) for span in spans) == 2


# --- While it is written --------------------------------------------------------------------------------------------

WRITES = """
import sys, time
from recorders import *
recorder = recorder_in(sys.argv[1])
recorder.open()
seconds = float(sys.argv[2])
print(recorder.path, flush=True)
end, key = time.monotonic() + seconds, 0
while time.monotonic() < end:
    for _ in range(8):
        key += 1
        name = f"{key} " * 20
        begin(recorder, key, name=name, path=f"/{key}", parent=key)
        if key % 4 == 0:
            recorder.note(key, {"attributes": {"key": key, "text": "x" * (key % 200)}})
            recorder.saw(key, here(), key, thread_id=key)
            recorder.add_event(key, f"{key}", {"key": key, "text": "y" * (key % 3000)}, key)
        if key > 20:
            recorder.end(key - 20)
    if key % 512 == 0:
        time.sleep(0.01)  # or a fast machine's reader never sees a span twice
print(key, flush=True)
"""


def is_mixed(span: OpenSpan) -> bool:
    """Whether anything on it is of another span: all that the writer writes follows from the span's id."""
    key = span.span_id
    wrong = [
        (span.trace_id, key << 64 | key),
        (span.parent_id, key),
        (span.start, START + key),
        (span.name, (f"{key} " * 20)),
        (span.attributes.get("url.path"), f"/{key}"),
        (span.attributes.get("key", key), key),
    ]
    if span.stack is not None:
        wrong += [(span.stack.taken, key), (span.stack.thread_id, key)]
    for event in span.events:
        wrong += [(event.name, str(key)), (event.timestamp, key), (event.attributes["key"], key)]
    return any(found != expected for found, expected in wrong)


def test_reading_while_it_is_written(tmp_path):
    """
    A reader beside a writer that hardly rests sees spans, and never one that has anything of another one's.
    """
    writer = Script(WRITES, tmp_path / "flight", 4)
    try:
        path = Path(writer.line())
        readings = seen = full = 0
        mixed = []
        while writer.process.poll() is None and path.exists():
            try:
                spans = read_record(path, alive=True).spans
            except FileNotFoundError:
                break
            readings += 1
            seen += len(spans)
            full += sum(bool(span.events and span.stack) for span in spans)
            mixed += [span for span in spans if is_mixed(span)]
        written = int(writer.line())
    finally:
        writer.close()

    assert mixed == []
    assert readings > 20
    assert seen > 100
    assert full > 0
    assert written > 1000


# --- Anything at all ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_change_to_a_file(whole, data):
    """
    Whatever is changed in a good file, what is read of it is whole or nothing is.
    """
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        offset = data.draw(st.integers(0, layout.page_offset(4)))
        new = data.draw(st.binary(min_size=1, max_size=64))
        content[offset : offset + len(new)] = new
    del content[data.draw(st.integers(0, len(content)) | st.just(len(content))) :]
    try:
        record = parsed(content)
    except UnreadableRecord:
        return

    assert len(record.spans) <= layout.SLOT_COUNT
    assert all(span.trace_id and span.span_id for span in record.spans)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=4000), seed=st.integers(0, 2**32))
def test_any_bytes(data, seed):
    """
    Whatever the bytes of a file are, nothing but that it is unreadable is ever raised.
    """
    draw = random.Random(seed)
    header = layout.HEADER.pack(
        layout.MAGIC,
        layout.VERSION,
        layout.HEADER_SIZE,
        layout.SLOT_SIZE,
        layout.SLOT_COUNT,
        layout.PAGE_SIZE,
        layout.PAGE_COUNT,
        1,
        2,
        data[:36],
    )
    rest = (data * (layout.FILE_SIZE // max(len(data), 1) + 1))[: draw.randrange(layout.FILE_SIZE)]
    try:
        parsed(header + rest)
    except UnreadableRecord:
        assert len(header + rest) < layout.HEADER_SIZE


def test_two_seconds_of_fuzzing_find_nothing():
    """
    Two seconds of random and mutated files raise nothing but that a file is unreadable, within bounded memory.
    """
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--seconds", "2"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[0]) > 20
