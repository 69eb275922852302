"""The flight recorder: what it writes, for how many, in which file, and that it harms nobody."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import mmap
import os
import random
import sys
import threading
import time
from pathlib import Path

import pytest
from recorders import (
    PATIENCE,
    RESOURCE,
    START,
    Script,
    begin,
    here,
    in_child,
    recorder_in,
    span_in,
    spans_in,
    wait_until,
)

from otel_introspect import faults
from otel_introspect.engine import flight_recorder
from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.recorder_reading import is_alive, read_record


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


@pytest.fixture(name="recorder")
def _recorder(folder):
    recorder = recorder_in(folder)
    recorder.open()

    yield recorder

    recorder.close()


@pytest.fixture(name="script")
def _script():
    started = []

    def script(code, *arguments, **options):
        started.append(Script(code, *arguments, **options))
        return started[-1]

    yield script

    for each in started:
        each.close()


def files_in(folder):
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def held_files():
    """The recorders' files that this process has open."""
    held = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one by which they are listed
            held.append(str(each.readlink()))
    return [each for each in held if each.endswith((".flight", ".making", ".flight (deleted)"))]


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


# --- What is written ------------------------------------------------------------------------------------------------


def test_a_span_that_has_just_started(recorder):
    """
    Its ids, parent, start, thread, kind, name, method and path are there at once.
    """
    trace_id = 0x0AF7651916CD43DD8448EB211C80319C
    flags = layout.PARENT_IS_REMOTE | layout.STABLE_NAMES
    recorder.begin(0xB7AD6B7169203331, trace_id, 0xEEEE, START, 77, 1, flags, "GET /é\0GET\0/é/1")
    span = span_in(recorder, 0xB7AD6B7169203331)

    assert span.trace_id == trace_id
    assert span.parent_id == 0xEEEE
    assert span.parent_is_remote
    assert (span.start, span.thread_id, span.kind, span.name) == (START, 77, 1, "GET /é")
    assert span.attributes == {"http.request.method": "GET", "url.path": "/é/1"}
    assert span.stack is None
    assert span.events == ()


def test_the_largest_numbers(recorder):
    """
    Ids, starts and threads may be as large as their types allow.
    """
    largest = 2**64 - 1
    recorder.begin(largest, 2**128 - 1, largest, largest, largest, 4, 0, "n\0\0")
    span = span_in(recorder, largest)

    assert (span.trace_id, span.parent_id, span.start, span.thread_id) == (2**128 - 1, largest, largest, largest)


@pytest.mark.parametrize(
    ("flags", "names"),
    [(layout.STABLE_NAMES, {"http.request.method", "url.path"}), (0, {"http.method", "http.target"})],
)
def test_both_kinds_of_names(recorder, flags, names):
    """
    Method and path come back under the names that the span had them under.
    """
    begin(recorder, 1, flags=flags)

    assert set(span_in(recorder, 1).attributes) == names


@pytest.mark.parametrize("name", ["", "x" * 5000, "é" * 300, "\ud800 lone", "a\nb\tc", "\U0001f600" * 200])
def test_any_name(recorder, name):
    """
    A name may be of any length and have anything in it; what is read is fit for UTF-8.
    """
    begin(recorder, 1, name=name)
    span = span_in(recorder, 1)

    assert name[:50].encode("utf-8", "backslashreplace").decode().startswith(span.name[:50])
    assert "\ud800" not in span.name
    assert faults.counts == {}


@pytest.mark.parametrize("value", [-1, 2**64, "text", None])
def test_a_number_that_no_slot_can_hold(recorder, value):
    """
    Such a span is not written down, and its slot is free again.
    """
    recorder.begin(1, 2, 0, value, 1, 1, 0, "name\0\0")

    assert spans_in(recorder) == {}
    assert 1 not in recorder
    assert len(recorder._free) == layout.SLOT_COUNT
    assert faults.counts == {("failed", "writing down a span"): 1}


def test_what_was_learned_later(recorder):
    """
    A note replaces the name and adds attributes; the next one takes its place.
    """
    begin(recorder, 1)
    recorder.note(1, {"name": "first", "attributes": {"http.route": "/a"}})
    recorder.note(1, {"name": "GET /<id>", "attributes": {"http.route": "/<id>", "odd": {"no": "attribute"}}})
    span = span_in(recorder, 1)

    assert span.name == "GET /<id>"
    assert span.attributes == {"http.request.method": "GET", "url.path": "/", "http.route": "/<id>"}


def test_a_note_that_is_too_long(recorder):
    """
    What has no room in a note is left out, the longest value first.
    """
    begin(recorder, 1)
    recorder.note(1, {"name": "short", "attributes": {"http.route": "/" * 600}})

    assert span_in(recorder, 1).name == "short"
    assert "http.route" not in span_in(recorder, 1).attributes


def test_where_a_span_was_last_seen(recorder):
    """
    Its frames, innermost first, with observer, thread, time and the task's state.
    """
    begin(recorder, 1)
    recorder.saw(1, here(), START + 5, thread_id=9, observer="signal", task_state="awaiting")
    stack = span_in(recorder, 1).stack

    assert (stack.taken, stack.thread_id, stack.observer, stack.task_state) == (START + 5, 9, "signal", "awaiting")
    assert stack.frames[0].function == "test_where_a_span_was_last_seen"
    assert stack.frames[0].file == __file__
    assert stack.frames[0].line == test_where_a_span_was_last_seen.__code__.co_firstlineno + 5


def test_a_stack_that_is_too_deep(recorder):
    """
    The innermost frames are kept, as many as have room.
    """

    def deep(levels):
        return here() if not levels else deep(levels - 1)

    begin(recorder, 1)
    recorder.saw(1, deep(100), START)
    frames = span_in(recorder, 1).stack.frames

    assert {frame.function.rpartition(".")[2] for frame in frames} == {"deep"}
    assert 10 < len(frames) < 100


def test_events(recorder):
    """
    They come back in order, with name, time and attributes, whatever their length.
    """
    begin(recorder, 1)
    given = [(f"event {number}", {"text": "é" * number * 500, "number": number}) for number in range(1, 12)]
    for number, (name, attributes) in enumerate(given):
        recorder.add_event(1, name, attributes, START + number)
    found = span_in(recorder, 1).events

    assert [(each.name, each.attributes) for each in found] == given
    assert [each.timestamp for each in found] == [START + number for number in range(len(given))]


def test_attributes_of_events(recorder):
    """
    Texts, numbers, booleans and sequences come back as they were, a lone surrogate escaped.
    """
    begin(recorder, 1)
    recorder.add_event(1, "e", {"b": True, "f": 0.5, "t": ("a", "b"), "s": "\ud800", "\udfff": 1}, START)

    expected = {"b": True, "f": 0.5, "t": ["a", "b"], "s": "\\ud800", "\\udfff": 1}
    assert span_in(recorder, 1).events[0].attributes == expected


def test_what_the_process_is(recorder):
    """
    The header says pid, start, boot and resource; the heartbeat when it was last alive.
    """
    before = time.monotonic_ns()
    recorder.beat(idle=False)
    record = read_record(recorder.path)

    assert (record.pid, record.resource, record.overflowed) == (os.getpid(), RESOURCE, 0)
    assert record.process_start == flight_recorder.process_start(os.getpid())
    assert record.boot_id == flight_recorder.boot_id()
    assert before <= record.beat_monotonic <= time.monotonic_ns()
    assert abs(record.beat - time.time_ns()) < PATIENCE * 10**9


def test_an_idle_process(recorder):
    """
    While nothing is to be looked at there is no sign of life to wait for.
    """
    recorder.beat(idle=True)

    assert read_record(recorder.path).beat is None


def test_a_resource_of_any_size(folder):
    """
    What has no room is left out, the longest first; what is no attribute does no harm.
    """
    recorder = recorder_in(folder, {"service.name": "shop", "long": "x" * 50_000, "odd": object(), "\ud800": "\ud800"})
    recorder.open()
    resource = read_record(recorder.path).resource
    recorder.close()

    assert resource["service.name"] == "shop"
    assert "long" not in resource
    assert json.dumps(resource, ensure_ascii=False).encode("utf-8")


def test_a_resource_that_raises(folder):
    """
    A process that can't be described is recorded without that.
    """

    def fails():
        raise ValueError("no resource")

    recorder = flight_recorder.FlightRecorder(flight_recorder.RecorderDirectory(str(folder)), fails)
    assert recorder.open()
    begin(recorder, 1)
    found = spans_in(recorder)
    recorder.close()

    assert set(found) == {1}


# --- Slots and pages ------------------------------------------------------------------------------------------------


def test_an_ended_span_is_gone(recorder):
    """
    What has ended is not there any more, and ending it again does nothing.
    """
    begin(recorder, 1)
    recorder.end(1)
    recorder.end(1)

    assert spans_in(recorder) == {}
    assert len(recorder._free) == layout.SLOT_COUNT


def test_more_spans_than_slots(recorder):
    """
    Those that find no slot are counted, and the others unharmed.
    """
    for key in range(1, layout.SLOT_COUNT + 11):
        begin(recorder, key)
    recorder.beat(idle=False)
    record = read_record(recorder.path)

    assert {span.span_id for span in record.spans} == set(range(1, layout.SLOT_COUNT + 1))
    assert record.overflowed == 10
    assert layout.SLOT_COUNT + 1 not in recorder


def test_a_slot_s_next_span_has_nothing_of_the_last_one(recorder):
    """
    Notes, stacks and events of a span that has ended are never shown for the one that has its slot and pages.
    """
    begin(recorder, 1)
    recorder.note(1, {"name": "the first's"})
    recorder.saw(1, here(), START)
    recorder.add_event(1, "the first's", {"text": "x" * 9000}, START)
    recorder.end(1)
    begin(recorder, 2, name="second")
    recorder.add_event(2, "the second's", {}, START)
    span = span_in(recorder, 2)

    assert span.name == "second"
    assert span.stack is None
    assert [event.name for event in span.events] == ["the second's"]


def test_what_comes_too_late(recorder):
    """
    Notes, stacks and events for a span that has ended are for nobody.
    """
    begin(recorder, 1)
    recorder.end(1)
    before = recorder.path.read_bytes()
    recorder.note(1, {"name": "late"})
    recorder.saw(1, here(), START)
    recorder.add_event(1, "late", {}, START)

    assert recorder.path.read_bytes() == before


def test_pages_run_out(recorder):
    """
    An event that has no room as a whole is dropped and counted; what was there stays, and pages come back.
    """
    begin(recorder, 1)
    begin(recorder, 2)
    recorder.add_event(2, "there", {}, START)
    for _ in range(layout.PAGE_COUNT):
        recorder.add_event(1, "large", {"text": "x" * 5000}, START)

    assert faults.counts["dropped", "flight recorder is full"] > 0
    assert [event.name for event in span_in(recorder, 2).events] == ["there"]
    assert {len(event.attributes["text"]) for event in span_in(recorder, 1).events} == {5000}
    recorder.end(1)
    recorder.add_event(2, "again", {"text": "y" * 50_000}, START)
    assert [event.name for event in span_in(recorder, 2).events] == ["there", "again"]


def test_nothing_leaks(recorder):
    """
    After 100,000 spans from several threads, some of them slow, every slot and page is free again.
    """
    failures = []

    def work(number):
        draw = random.Random(number)
        try:
            for count in range(12_500):
                key = number << 32 | count + 1
                begin(recorder, key)
                if count % 50 == 0:
                    recorder.note(key, {"name": "slow"})
                    recorder.saw(key, here(), START)
                    recorder.add_event(key, "slow", {"text": "x" * draw.randrange(9000)}, START)
                recorder.end(key)
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    recorder._take_pages_back()

    assert failures == []
    assert sorted(recorder._free) == list(range(layout.SLOT_COUNT))
    assert sorted(recorder._free_pages) == list(range(layout.PAGE_COUNT))
    assert (recorder._slots, recorder._pages, len(recorder._ended)) == ({}, {}, 0)
    assert spans_in(recorder) == {}
    assert recorder.overflowed == 0


def test_a_span_that_ends_while_it_is_written_about(recorder):
    """
    Whoever ends a span just as evidence of it is written has its pages come back all the same.
    """
    stop = time.monotonic() + 2
    key = 0
    current = [0]
    failures = []

    def write():
        while time.monotonic() < stop and not failures:
            try:
                recorder.add_event(current[0], "e", {"text": "x" * 100}, START)
                recorder.saw(current[0], here(), START)
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for each in threads:
        each.start()
    while time.monotonic() < stop:
        key += 1
        begin(recorder, key)
        current[0] = key
        recorder.end(key)
    for each in threads:
        each.join()
    recorder._take_pages_back()

    assert failures == []
    assert sorted(recorder._free_pages) == list(range(layout.PAGE_COUNT))
    assert recorder._pages == {}


def test_a_handler_of_a_posix_signal_waits_for_nobody(recorder):
    """
    What a handler calls takes no lock: it may have interrupted the one that holds it.
    """
    begin(recorder, 1)
    with recorder._writing:
        recorder.saw(1, here(), START, observer="signal")
        begin(recorder, 2)
        recorder.end(2)

    assert span_in(recorder, 1).stack.observer == "signal"


def test_opening_while_somebody_is_at_it(folder):
    """
    A handler of the application's that starts a span in the middle of the file's being made does not wait for ever.
    """
    recorder = recorder_in(folder)
    with recorder._writing:
        assert not recorder.open()

    assert recorder.open()
    recorder.close()


# --- The file -------------------------------------------------------------------------------------------------------


def test_nothing_before_it_is_needed(folder):
    """
    Making a recorder makes no directory and no file, and spans that start then are let be.
    """
    recorder = recorder_in(folder)
    begin(recorder, 1)
    recorder.note(1, {})
    recorder.saw(1, here(), START)
    recorder.add_event(1, "e", {}, START)
    recorder.beat(idle=False)
    recorder.end(1)

    assert not folder.exists()


def test_the_file_is_private_and_has_its_blocks(recorder):
    """
    Only its owner may read it, and no block of it is missing: storing to one would need room on the disk.
    """
    status = recorder.path.stat()

    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == layout.FILE_SIZE
    assert status.st_blocks * 512 >= layout.FILE_SIZE


def test_it_is_locked_while_its_process_lives(recorder):
    """
    Who asks is told that the process lives, and asking does not take the lock away.
    """
    assert is_alive(recorder.path)
    assert is_alive(recorder.path)
    path = recorder.path
    recorder.close()
    assert not path.exists()


def test_who_looks_for_dead_ones_keeps_nobody_from_making_his(folder, script):
    """
    A file has its name only when it is locked and has its header: nobody takes it for a dead one's before.
    """
    looker = script(LOOKS, folder)
    assert looker.line() == "looking"
    for _ in range(200):
        recorder = recorder_in(folder)
        assert recorder.open()
        recorder.close()

    _, out, errors = looker.finish()
    assert errors == ""
    assert out.split() == ["dead:", "0", "unreadable:", "0"]


LOOKS = """
import sys, threading
from pathlib import Path
from otel_introspect.engine.recorder_reading import UnreadableRecord, is_alive, read_record

folder, over = Path(sys.argv[1]), threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
folder.mkdir(mode=0o700, exist_ok=True)
dead = unreadable = 0
print("looking", flush=True)
while not over.is_set():
    for path in folder.glob("*.flight"):
        try:
            # Its process removes it before it gives up the lock.
            dead += not is_alive(path) and path.exists()
            read_record(path)
        except FileNotFoundError:
            pass
        except UnreadableRecord:
            unreadable += 1
print("dead:", dead, "unreadable:", unreadable)
"""


def test_closing(recorder, folder):
    """
    The file goes, no descriptor stays, and who is late does no harm.
    """
    begin(recorder, 1)
    before = descriptors()
    recorder.close()
    recorder.close()
    recorder.end(1)
    begin(recorder, 2)
    recorder.beat(idle=False)

    assert files_in(folder) == []
    assert descriptors() == before - 2  # the mapping has one of its own
    assert faults.counts == {}


def test_closing_under_fire(folder):
    """
    Requests that start and end while the file is closed and made again get no exception.
    """
    failures, stop = [], threading.Event()

    def work(number):
        key = number << 32
        while not stop.is_set():
            key += 1
            try:
                begin(recorder, key)
                recorder.saw(key, here(), START)
                recorder.end(key)
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)

    recorder = recorder_in(folder)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 3)]
    for each in threads:
        each.start()
    for _ in range(15):
        recorder.open()
        time.sleep(0.005)
        recorder.close()
    stop.set()
    for each in threads:
        each.join()

    assert failures == []
    assert faults.counts == {}


# --- Other processes ------------------------------------------------------------------------------------------------

WRITES = """
import sys, time
from recorders import *
recorder = recorder_in(sys.argv[1])
recorder.open()
for key in (1, 2, 3):
    begin(recorder, key, name=f"GET /{key}")
recorder.end(3)
recorder.saw(2, here(), START)
recorder.add_event(2, "evidence", {"text": "x" * 5000}, START)
print(recorder.path, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(name="writes")
def _writes(script, folder):
    def writes(*, then=""):
        return script(WRITES + then, folder)

    return writes


def test_a_process_that_is_killed(writes, folder):
    """
    After a ``kill -9`` the file is there, not locked any more, with every span that was open and all that was known.
    """
    process = writes()
    path = folder / Path(process.line()).name
    assert is_alive(path)
    process.kill()

    assert not is_alive(path)
    first, second = read_record(path).spans
    assert (first.span_id, first.name) == (1, "GET /1")
    assert (second.span_id, second.stack.frames[0].function) == (2, "<module>")
    assert second.events[0].attributes == {"text": "x" * 5000}


def test_the_interpreter_s_exit(writes, folder):
    """
    A process that ends by itself leaves no file, even with spans open.
    """
    process = writes()
    process.line()
    status, _, errors = process.finish()

    assert (status, errors) == (0, "")
    assert files_in(folder) == []


def test_an_exit_without_farewell(writes, folder):
    """
    After ``os._exit`` the file is there, and nobody has it locked.
    """
    process = writes(then="import os; os._exit(3)")
    process.line()
    process.finish()

    (name,) = files_in(folder)
    assert not is_alive(folder / name)
    assert len(read_record(folder / name).spans) == 2


def test_a_forked_child_has_its_own(recorder, folder):
    """
    A child never writes to its parent's file, makes its own, and holds neither descriptor nor lock of the parent's.
    """
    begin(recorder, 1)
    before = recorder.path.read_bytes()

    def work():
        recorder.end(1)
        begin(recorder, 2)
        recorder.beat(idle=False)
        held = held_files()
        recorder.open()
        begin(recorder, 3)
        own = list(spans_in(recorder))
        recorder.close()
        return held, own

    assert in_child(work) == "([], [3])"
    assert recorder.path.read_bytes() == before
    assert files_in(folder) == [recorder.path.name]
    recorder.end(1)
    assert spans_in(recorder) == {}


def test_a_child_that_outlives_its_parent(script, folder):
    """
    A parent that is killed is known for dead although a child of its lives on.
    """
    process = script(FORKS, folder)
    path, child = folder / Path(process.line()).name, int(process.line())
    process.process.kill()
    process.process.wait()
    try:
        assert wait_until(lambda: not is_alive(path))
        os.kill(child, 0)
    finally:
        os.kill(child, 9)


FORKS = """
import os, sys, time
from recorders import *
recorder = recorder_in(sys.argv[1])
recorder.open()
begin(recorder, 1)
child = os.fork()
if not child:
    os.close(1), os.close(2)
    time.sleep(60)
    os._exit(0)
print(recorder.path, child, sep="\\n", flush=True)
time.sleep(60)
"""


def test_one_that_nobody_has_closed_is(folder):
    """
    A recorder that is dropped without being closed leaves neither descriptor nor file.
    """
    recorder = recorder_in(folder)
    assert recorder.open()
    path = recorder.path
    before = set(held_files())

    del recorder
    gc.collect()

    assert before - set(held_files()) == {str(path)}
    assert not path.exists()


def test_a_fork_while_another_thread_makes_the_file(folder, monkeypatch):
    """
    A child of a process that was just making its file does not keep that locked.
    """
    entered, go_on = threading.Event(), threading.Event()
    allocate = flight_recorder._allocate

    def slow(file, size):
        entered.set()
        go_on.wait(PATIENCE)
        allocate(file, size)

    monkeypatch.setattr(flight_recorder, "_allocate", slow)
    recorder = recorder_in(folder)
    thread = threading.Thread(target=recorder.open)
    thread.start()
    entered.wait(PATIENCE)

    said = in_child(held_files)
    go_on.set()
    thread.join()
    recorder.close()
    assert said == "[]"


def test_a_fork_while_another_thread_stores_to_the_file(recorder):
    """
    The frame of a thread that the child does not have keeps neither mapping nor lock there.
    """
    entered, go_on = threading.Event(), threading.Event()

    def stores():
        mapped = recorder._map
        entered.set()
        go_on.wait(PATIENCE)
        return mapped

    thread = threading.Thread(target=stores)
    thread.start()
    entered.wait(PATIENCE)
    said = in_child(held_files)
    go_on.set()
    thread.join()
    assert said == "[]"


# --- What may go wrong ----------------------------------------------------------------------------------------------


def warnings_in(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_refused_directory(folder, caplog):
    """
    One line says why there is no recorder and what to do; spans go on, and nothing is tried again.
    """
    folder.mkdir()
    folder.chmod(0o777)
    recorder = recorder_in(folder)
    for key in range(1, 100):
        recorder.open()
        begin(recorder, key)
        recorder.end(key)

    (said,) = warnings_in(caplog)
    assert "can be written by other users (mode 777" in said
    assert "OTEL_PYTHON_INTROSPECT_RECORDER_DIR" in said
    assert files_in(folder) == []
    assert faults.counts == {("failed", "opening the flight recorder"): 1}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_full_disk(folder, caplog, monkeypatch, number):
    """
    Where the blocks can't be had there is no recorder, no file and no descriptor left, and one line says so.
    """

    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = descriptors()
    recorder = recorder_in(folder)
    assert not recorder.open()
    begin(recorder, 1)

    (said,) = warnings_in(caplog)
    assert os.strerror(number) in said
    assert files_in(folder) == []
    assert descriptors() == before


def test_a_file_system_that_allocates_nothing(folder, monkeypatch):
    """
    Where the call is not known, the blocks are written.
    """

    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    recorder = recorder_in(folder)
    assert recorder.open()
    blocks = recorder.path.stat().st_blocks
    recorder.close()

    assert blocks * 512 >= layout.FILE_SIZE


@pytest.mark.parametrize("limit", ["RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS"])
def test_a_limit_of_the_process(script, folder, limit):
    """
    A process that may have no such file, no more descriptors or no more memory goes on without a recorder.
    """
    process = script(LIMITED, folder, limit)
    status, out, errors = process.finish()

    assert status == 0
    assert out == "False\nunharmed\n"
    assert errors.count("keeps no flight recorder") == 1


LIMITED = """
import resource, signal, sys
from recorders import *
recorder = recorder_in(sys.argv[1])
RecorderDirectory(sys.argv[1]).make()
if sys.argv[2] == "RLIMIT_FSIZE":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = 4096
elif sys.argv[2] == "RLIMIT_NOFILE":
    limit = 3
else:
    limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 512 * 1024
which = getattr(resource, sys.argv[2])
before = resource.getrlimit(which)
resource.setrlimit(which, (limit, before[1]))
opened = recorder.open()
begin(recorder, 1)
recorder.end(1)
resource.setrlimit(which, before)
print(opened, "unharmed", sep="\\n")
"""


@pytest.mark.parametrize("what", ["file", "directory"])
def test_its_file_is_removed(recorder, folder, what):
    """
    Somebody who cleans up costs nothing: it goes on in another file, with all that was in the first.
    """
    begin(recorder, 1)
    recorder.saw(1, here(), START)
    recorder.add_event(1, "evidence", {}, START)
    recorder.path.unlink()
    if what == "directory":
        folder.rmdir()
    before = descriptors()
    recorder.beat(idle=False)
    begin(recorder, 2)

    found = spans_in(recorder)
    assert set(found) == {1, 2}
    assert (found[1].stack.taken, found[1].events[0].name) == (START, "evidence")
    assert is_alive(recorder.path)
    assert descriptors() == before
    recorder.end(1)
    recorder.add_event(2, "more", {}, START)
    assert [event.name for event in spans_in(recorder)[2].events] == ["more"]


def test_its_file_is_removed_again_and_again(recorder):
    """
    Spans that start and end while it changes files are all there in the end, and none that has ended.
    """
    failures, stop = [], threading.Event()
    open_ones = {}

    def work(number):
        key = number << 32
        while not stop.is_set():
            key += 1
            try:
                begin(recorder, key)
                begin(recorder, key | 1 << 31)  # no other thread has that one
                recorder.end(key | 1 << 31)
                if key % 16:
                    recorder.end(key)
                else:
                    recorder.end(open_ones.get(number))
                    open_ones[number] = key
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 3)]
    for each in threads:
        each.start()
    for _ in range(25):
        recorder.path.unlink()
        recorder.beat(idle=False)
        time.sleep(0.002)
    stop.set()
    for each in threads:
        each.join()

    assert failures == []
    assert set(spans_in(recorder)) == set(open_ones.values())


def test_its_file_is_cut_short(recorder, folder):
    """
    It goes on in another file; what was cut off is not read, and slots come back as their spans end.
    """
    begin(recorder, 1)
    cut = recorder.path
    os.truncate(cut, 100)
    recorder.beat(idle=False)
    begin(recorder, 2)

    assert set(spans_in(recorder)) == {2}
    assert files_in(folder) == [recorder.path.name]
    assert recorder.path != cut
    recorder.end(1)
    recorder.end(2)
    assert sorted(recorder._free) == list(range(layout.SLOT_COUNT))


def test_its_file_is_removed_and_there_can_be_no_other(recorder, folder, caplog, monkeypatch):
    """
    Then there is no recorder any more, one line says so, and requests that are open end as ever.
    """
    begin(recorder, 1)
    recorder.path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    recorder.beat(idle=False)
    recorder.beat(idle=False)
    recorder.end(1)
    begin(recorder, 2)

    (said,) = warnings_in(caplog)
    assert "its file was removed or cut short, and there can be no other" in said
    assert not recorder.is_open
    assert not recorder.open()


# --- What it costs a request ----------------------------------------------------------------------------------------

COSTS = """
import sys
from recorders import *
recorder = recorder_in(sys.argv[1])
recorder.open()
begin(recorder, 1), recorder.end(1)
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
loaded = set(sys.modules)
for key in range(1, 1000):
    begin(recorder, key)
    recorder.end(key)
found = list(seen)
print(found, set(sys.modules) - loaded)
"""


def test_a_request_opens_and_imports_nothing(script, folder):
    """
    A span that starts and ends raises no audit event (open, mmap, import and the like) and loads no module.
    """
    assert script(COSTS, folder).finish() == (0, "[] set()\n", "")


COUNTS = """
import resource, sys, time
from recorders import *
recorder = recorder_in(sys.argv[1])
recorder.open()
print("ready", flush=True)
sys.stdin.readline()
syscalls = lambda: [l for l in open("/proc/self/io") if l.startswith("sysc")]
before, faults = syscalls(), resource.getrusage(resource.RUSAGE_SELF).ru_inblock
for key in range(1, 10_001):
    begin(recorder, key)
    recorder.end(key)
print(before, syscalls())
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count reads and writes")
def test_a_request_reads_and_writes_nothing(script, folder):
    """
    10,000 spans cost no system call that reads or writes, as the kernel counts them, but for the counting itself.
    """
    process = script(COUNTS, folder)
    assert process.line() == "ready"
    _, out, _ = process.finish()
    before, after = (
        [int(each.partition(":")[2].strip(" \\n'")) for each in part.strip("[] \n").split(",")]
        for part in out.strip().split("] [")
    )

    assert after[0] - before[0] <= 3
    assert after[1] - before[1] == 0


def test_gevent(script, folder):
    """
    Under gevent's patching greenlets write to one file, and what is written while others wait is whole.
    """
    pytest.importorskip("gevent")
    process = script(GREENLETS, folder)

    assert process.finish() == (0, "100 100 0\n", "")


GREENLETS = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, gevent
from recorders import *
recorder = recorder_in(sys.argv[1])

def request(key):
    recorder.open()
    begin(recorder, key)
    gevent.sleep(0.01)
    recorder.add_event(key, "evidence", {"key": key}, START)
    gevent.sleep(0.5)
    recorder.end(key)

greenlets = [gevent.spawn(request, key) for key in range(1, 101)]
gevent.sleep(0.25)
found = spans_in(recorder)
right = [key for key, span in found.items() if [each.attributes for each in span.events] == [{"key": key}]]
gevent.joinall(greenlets)
print(len(found), len(right), len(spans_in(recorder)))
"""


def test_the_map_is_the_file(recorder):
    """
    What is stored is in the file at once, without a flush.
    """
    begin(recorder, 1)
    with recorder.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as other:
        sequence = int.from_bytes(other[layout.HEADER_SIZE : layout.HEADER_SIZE + 8], sys.byteorder)

    assert sequence == 1
