"""Recovery of the requests of dead processes: what is sent, by whom, and what is left alone."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - loaded after a provider, the SDK's forked children hang in its lock
import contextlib
import errno
import gc
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from log_records import Logs
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from otel_introspect import faults
from otel_introspect.config import EvidenceConfig, IntrospectConfig, ProfilerConfig, RecorderConfig, WatchdogConfig
from otel_introspect.engine import recorder_claims, recorder_directory, recorder_layout
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_claims import abandoned, claim
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.recorder_reading import UnreadableRecord
from otel_introspect.engine.stacks import capture, outwards
from otel_introspect.introspection import Introspection
from otel_introspect.processors.recovery import WHY, ExportersOutlet, ProviderOutlet, Recovery, records_of
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

SECOND = 1_000_000_000
SNAPSHOT = "otel_introspect.stack_snapshot"
RESOURCE = {"service.name": "shop", "process.pid": 4711, "tags": ["a", "b"]}
PATIENCE = 30
DAY = 24 * 3600


def names_in(folder):
    return [each.name for each in folder.iterdir()]


def here():
    return capture(outwards(sys._getframe(1)))


class Dead:
    """A process that is dead: what its flight recorder has left."""

    def __init__(self, folder, *, threshold_ms=1000, resource=RESOURCE):
        self.recorder = FlightRecorder(RecorderDirectory(str(folder)), lambda: resource, threshold_ms)
        assert self.recorder.open()
        self.path = self.recorder.path

    def begin(self, key, *, start=None, parent=0, flags=recorder_layout.STABLE_NAMES, kind=1, thread_id=None):
        start = time.time_ns() - 5 * SECOND if start is None else start
        thread_id = threading.get_ident() if thread_id is None else thread_id
        text = f"GET /{key}\0GET\0/{key}"
        self.recorder.begin(key, key << 64 | key, parent, start, thread_id, kind, flags, text)
        return start

    def snapshot(self, key, timestamp, *, text="  File ...", repeated=1, **more):
        attributes = {
            "code.stacktrace": text,
            "otel_introspect.threshold_ms": 1000,
            "otel_introspect.repeated": repeated,
            **more,
        }
        self.recorder.add_event(key, SNAPSHOT, attributes, timestamp)

    def die(self, *, beat=None):
        """Leave the file as a killed process would."""
        if beat is not None:
            recorder_layout.BEAT.pack_into(self.recorder._map, recorder_layout.BEAT_OFFSET, beat, 1, 0)
        self.recorder.forget()
        return self.path


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


@pytest.fixture(name="dead")
def _dead(folder):
    return lambda **given: Dead(folder, **given)


class Living:
    """A process that recovers: its provider, and what that has exported."""

    def __init__(self, folder, evidence=None, records=None):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource({"service.name": "the living"}))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.flushes = 0
        self.outlet = ProviderOutlet(lambda: self.provider, self._flush)
        directory = RecorderDirectory(str(folder))
        self.recovery = Recovery(directory, evidence or EvidenceConfig(), self.outlet, records=records)

    def _flush(self):
        self.flushes += 1
        self.provider.force_flush()

    def recover(self):
        """The spans that it sends, by their ids."""
        self.recovery.run()
        spans = self.exporter.get_finished_spans()
        self.exporter.clear()
        found = {span.context.span_id: span for span in spans}
        assert len(found) == len(spans)
        return found


@pytest.fixture(name="living")
def _living(folder):
    living = Living(folder)

    yield living

    living.provider.shutdown()


def snapshots(span):
    return [event for event in span.events if event.name == SNAPSHOT]


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# --- The span -------------------------------------------------------------------------------------------------------


def test_it_is_the_request_s_own_span(dead, living):
    """
    It has the ids, parent, kind, name, start, attributes and resource of the request's own, and is an error.
    """
    process = dead()
    start = process.begin(7, parent=5, flags=recorder_layout.STABLE_NAMES | recorder_layout.PARENT_IS_REMOTE)
    process.recorder.note(7, {"name": "GET /<int>", "attributes": {"http.route": "/<int>"}})
    process.die()

    (span,) = living.recover().values()

    assert (span.context.trace_id, span.context.span_id, span.context.trace_flags) == (7 << 64 | 7, 7, 1)
    assert (span.parent.trace_id, span.parent.span_id, span.parent.is_remote) == (7 << 64 | 7, 5, True)
    assert (span.name, span.kind, span.start_time) == ("GET /<int>", SpanKind.SERVER, start)
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "url.path": "/7",
        "http.route": "/<int>",
        "otel_introspect.recovered": True,
        "otel_introspect.slow": True,
        "otel_introspect.snapshots": 0,
    }
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, WHY)
    assert dict(span.resource.attributes) == {**RESOURCE, "tags": ("a", "b")}


def test_a_root_and_a_local_parent(dead, living):
    """
    A span without a parent has none, and one whose parent was in the same process says so.
    """
    process = dead()
    process.begin(1)
    process.begin(2, parent=9)
    process.die()

    spans = living.recover()

    assert spans[1].parent is None
    assert spans[2].parent.is_remote is False


def test_all_that_was_on_it_is_on_it_again(dead, living):
    """
    Each event that was written down comes back, with name, time, attributes and their types; the span says how many.
    """
    process = dead()
    start = process.begin(1)
    process.snapshot(1, start + SECOND, line=3, flag=True, share=0.5, frames=["a", "b"])
    process.snapshot(1, start + 2 * SECOND)
    process.recorder.add_event(1, "otel_introspect.profile", {"otel_introspect.profile.id": "ab"}, start + 3 * SECOND)
    process.die()

    span = living.recover()[1]

    first, second, profile = span.events
    assert dict(first.attributes) == {
        "code.stacktrace": "  File ...",
        "otel_introspect.threshold_ms": 1000,
        "otel_introspect.repeated": 1,
        "line": 3,
        "flag": True,
        "share": 0.5,
        "frames": ("a", "b"),
    }
    assert (first.timestamp, second.timestamp) == (start + SECOND, start + 2 * SECOND)
    assert profile.name == "otel_introspect.profile"
    assert span.attributes["otel_introspect.profile.id"] == "ab"
    assert span.attributes["otel_introspect.snapshots"] == 2
    assert span.attributes["otel_introspect.slow"] is True


def test_it_ends_at_the_last_sign_of_life(dead, living):
    """
    The end is the latest of start, heartbeat, last stack and last event.
    """
    process = dead()
    for key in (1, 2, 3):
        start = process.begin(key, start=1_700_000_000 * SECOND)
    process.begin(4, start=start + 8 * SECOND)
    process.snapshot(2, start + 6 * SECOND)
    process.recorder.saw(3, here(), start + 7 * SECOND)
    process.die(beat=start + 5 * SECOND)

    spans = living.recover()

    assert {key: (span.end_time - start) // SECOND for key, span in spans.items()} == {1: 5, 2: 6, 3: 7, 4: 8}


def test_it_ends_neither_before_its_start_nor_in_the_future(dead, living):
    """
    Times that can't be are not believed.
    """
    now = time.time_ns()
    process = dead()
    process.begin(1, start=now)
    process.begin(2, start=now - SECOND)
    process.begin(3, start=2**63)
    process.recorder.saw(2, here(), now + DAY * SECOND)
    process.snapshot(2, now + DAY * SECOND)
    process.die(beat=1)

    spans = living.recover()

    assert (spans[1].start_time, spans[1].end_time) == (now, now)
    assert spans[2].end_time == now - SECOND
    assert spans[3].start_time == spans[3].end_time
    assert now <= spans[3].end_time <= time.time_ns()


def test_the_last_stack_is_one_more_snapshot(dead, living):
    """
    Where the request was last seen, after its last snapshot, is a snapshot of its own, as the reporter makes them.
    """
    process = dead()
    start = process.begin(1)
    process.snapshot(1, start + SECOND)
    process.recorder.saw(1, here(), start + 2 * SECOND, thread_id=77, task_state="awaiting", observer="signal")
    process.die()

    _, last = snapshots(living.recover()[1])

    attributes = dict(last.attributes)
    text = attributes.pop("code.stacktrace")
    line = attributes.pop("code.line.number")
    assert last.timestamp == start + 2 * SECOND
    assert f'  File "{__file__}", line {line}, in test_the_last_stack_is_one_more_snapshot\n' in text
    assert text.endswith(
        'process.recorder.saw(1, here(), start + 2 * SECOND, thread_id=77, task_state="awaiting", observer="signal")'
    )
    assert attributes.pop("code.function.name").endswith("test_the_last_stack_is_one_more_snapshot")
    attributes.pop("otel_introspect.stack.frames", None)
    assert attributes == {
        "code.file.path": __file__,
        "thread.id": 77,
        "thread.name": "",
        "otel_introspect.elapsed_ms": 2000,
        "otel_introspect.threshold_ms": 1000,
        "otel_introspect.snapshot.index": 1,
        "otel_introspect.observer": "signal",
        "otel_introspect.lateness_ms": 0,
        "otel_introspect.repeated": 1,
        "otel_introspect.task.state": "awaiting",
    }


@pytest.mark.parametrize(
    ("threshold_ms", "expected"),
    [
        pytest.param(1000, 1, id="slow"),
        pytest.param(60_000, 0, id="within the threshold"),
        pytest.param(0, 0, id="no threshold"),
    ],
)
def test_only_what_was_slow_there_has_one(dead, living, threshold_ms, expected):
    """
    The threshold is the dead process's.
    """
    process = dead(threshold_ms=threshold_ms)
    start = process.begin(1)
    process.recorder.saw(1, here(), start + 2 * SECOND)
    process.die(beat=start + 5 * SECOND - 1)

    span = living.recover()[1]

    assert len(snapshots(span)) == expected
    assert span.attributes.get("otel_introspect.slow", False) is bool(expected)


def test_an_older_stack_is_none(dead, living):
    """
    A stack that was seen before the last snapshot says nothing that is not known.
    """
    process = dead()
    start = process.begin(1)
    process.recorder.saw(1, here(), start + SECOND)
    process.snapshot(1, start + SECOND)
    process.die()

    assert len(snapshots(living.recover()[1])) == 1


def test_the_same_stack_again_is_counted(dead, living):
    """
    A last stack that is the last snapshot's says how many in a row have shown it.
    """
    process = dead()
    start = process.begin(1)
    taken = here()
    process.recorder.saw(1, taken, start + 2 * SECOND)
    process.die()
    text = snapshots(living.recover()[1])[0].attributes["code.stacktrace"]
    process = dead()
    process.begin(1, start=start)
    process.snapshot(1, start + SECOND, text=text, repeated=3)
    process.recorder.saw(1, taken, start + 2 * SECOND)
    process.die()

    assert [each.attributes["otel_introspect.repeated"] for each in snapshots(living.recover()[1])] == [3, 4]


def test_the_bounds_hold_for_the_dead_too(dead, folder):
    """
    No string that is added is longer than the recovering process's settings allow.
    """
    process = dead()
    start = process.begin(1)
    process.recorder.saw(1, here(), start + 2 * SECOND)
    process.die()
    living = Living(folder, EvidenceConfig(max_attribute_bytes=200))

    (event,) = snapshots(living.recover()[1])

    assert all(len(each.encode()) <= 200 for each in event.attributes.values() if isinstance(each, str))
    assert "outer frames omitted" in event.attributes["code.stacktrace"]


def test_only_sources_are_read(dead, living, tmp_path):
    """
    A file whose name stands in a record is read only if it can be a source: none that blocks, none that is secret.
    """
    pipe, secret = tmp_path / "pipe.py", tmp_path / "secret"
    os.mkfifo(pipe)
    secret.write_text("the secret\n")
    process = dead()
    start = process.begin(1)
    code = (lambda: None).__code__
    positions = [(code.replace(co_filename=str(each), co_firstlineno=1), 0) for each in (pipe, secret)]
    process.recorder.saw(1, here()._replace(positions=tuple(positions)), start + 2 * SECOND)
    process.die()

    (event,) = snapshots(living.recover()[1])

    assert str(secret) in event.attributes["code.stacktrace"]
    assert "the secret" not in event.attributes["code.stacktrace"]


def test_a_fault_costs_the_evidence_only(dead, living, monkeypatch):
    """
    A span whose evidence can't be made sense of is sent without it.
    """
    process = dead()
    start = process.begin(1)
    process.recorder.saw(1, here(), start + 2 * SECOND)
    process.die()
    monkeypatch.setattr("otel_introspect.processors.recovery.described", lambda _: 1 / 0)

    assert snapshots(living.recover()[1]) == []
    assert faults.counts["failed", "recovering a span's evidence"] == 1


# --- What faulthandler has written ----------------------------------------------------------------------------------


def dump(path, thread_id, function, *, modified):
    written = path.with_suffix(".dump")
    written.write_text(
        f'Timeout (0:00:01)!\nThread {thread_id:#018x} (most recent call first):\n  File "/app/views.py", line 3 in'
        f' {function}\n  File "/app/urls.py", line 9 in handle\n'
    )
    os.utime(written, ns=(modified, modified))
    return written


def seen_at(*frames):
    code = (lambda: None).__code__
    codes = [code.replace(co_filename=file, co_firstlineno=line, co_name=name) for file, line, name in frames]
    if sys.version_info >= (3, 11):
        codes = [each.replace(co_qualname=f"View.{each.co_name}") for each in codes]
    positions = [(each, 0) for each in codes]
    return here()._replace(positions=tuple(positions), omitted=0)


def test_a_dump_is_the_last_stack(dead, living):
    """
    What faulthandler had written about the request's thread is a snapshot, and a sign of life.
    """
    process = dead()
    start = process.begin(1, thread_id=77)
    process.begin(2, thread_id=78)
    written = dump(process.die(beat=start), 77, "stuck", modified=start + 2 * SECOND)

    spans = living.recover()

    (event,) = snapshots(spans[1])
    assert event.attributes["code.stacktrace"].endswith('File "/app/views.py", line 3, in stuck')
    assert event.attributes["otel_introspect.observer"] == "faulthandler"
    assert event.attributes["otel_introspect.elapsed_ms"] == 2000
    assert event.attributes["thread.id"] == 77
    assert spans[1].end_time == start + 2 * SECOND
    assert snapshots(spans[2]) == []
    assert not written.exists()


def test_a_dump_is_of_those_that_were_open(dead, living):
    """
    A request that began after the dump was written is not in it.
    """
    process = dead()
    start = process.begin(1, thread_id=77)
    dump(process.die(), 77, "stuck", modified=start - SECOND)

    assert snapshots(living.recover()[1]) == []


@pytest.mark.parametrize(
    ("state", "frames", "expected"),
    [
        pytest.param("running", [("/app/views.py", 2, "stuck"), ("/app/urls.py", 9, "handle")], 2, id="the same way"),
        pytest.param("running", [("/app/other.py", 2, "other"), ("/app/other.py", 9, "serve")], 1, id="another way"),
        pytest.param("awaiting", [("/app/views.py", 2, "stuck"), ("/app/urls.py", 9, "handle")], 1, id="awaiting"),
        pytest.param(None, [("/app/views.py", 1, "before")], 2, id="a thread of its own"),
    ],
)
def test_a_dump_of_an_event_loop_s_thread(dead, living, state, frames, expected):
    """
    On a thread that requests share it is that of the one which was seen to run, in these very frames.
    """
    process = dead()
    start = process.begin(1, thread_id=77)
    process.recorder.saw(1, seen_at(*frames), start + SECOND, thread_id=77, task_state=state)
    dump(process.die(), 77, "stuck", modified=start + 2 * SECOND)

    assert len(snapshots(living.recover()[1])) == expected


def test_a_dump_of_two_that_nobody_has_seen(dead, living):
    """
    Of two requests on one thread, of which nothing else is known, neither gets what may be the other's.
    """
    process = dead()
    start = process.begin(1, thread_id=77)
    process.begin(2, thread_id=77)
    dump(process.die(), 77, "stuck", modified=start + 2 * SECOND)

    assert [snapshots(span) for span in living.recover().values()] == [[], []]


# --- Once ---------------------------------------------------------------------------------------------------------


def test_it_is_sent_once(dead, living, folder):
    """
    What was sent is not there any more, and neither is the file of a process that had nothing open.
    """
    process = dead()
    process.begin(1)
    process.die()
    dead().die()

    assert list(living.recover()) == [1]
    assert names_in(folder) == []
    assert living.recover() == {}


@pytest.mark.parametrize(("setting", "service", "expected"), [("", "shop", [1]), ("", "bank", []), (None, "bank", [1])])
def test_another_service_s_in_the_default_directory(  # noqa: PLR0917
    dead, folder, monkeypatch, setting, service, expected
):
    """
    In the directory that all services of a user share, each sends its own only; in one that was chosen, whoever comes.
    """
    monkeypatch.setattr(recorder_directory, "_default", lambda: folder)
    process = dead()
    process.begin(1)
    process.die()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    directory = str(folder) if setting is None else setting
    introspection = Introspection(
        IntrospectConfig(recorder=RecorderConfig(directory=directory)), tracer_provider=provider
    )
    provider.add_span_processor(WatchdogSpanProcessor(introspection))
    try:
        for _ in range(2):
            introspection.recovery.run()
        assert [span.context.span_id for span in exporter.get_finished_spans()] == expected
        assert introspection.recovery.is_needed() is False
    finally:
        provider.shutdown()
    assert list(Living(folder).recover()) == ([] if expected else [1])


def test_a_living_process_is_left_alone(dead, living):
    """
    Nobody takes the file of a process that lives, and that one goes on writing to it.
    """
    process = dead()
    process.begin(1)

    assert living.recover() == {}
    assert not living.recovery.is_needed()
    assert process.path.exists()
    process.recorder.close()


def test_a_claimer_that_died(dead, living):
    """
    A file whose claimer has died before it was done is claimed by the next one; one that is being seen to is not.
    """
    process = dead()
    process.begin(1)
    claimed = claim(process.die())

    assert claimed.path.suffix == ".claimed"
    assert living.recover() == {}
    claimed.give_up()
    assert list(living.recover()) == [1]


def test_a_claim_is_not_held_by_a_forked_child(dead, living):
    """
    A process that is forked while another one's file is seen to does not hold it, however long it lives.
    """
    process = dead()
    process.begin(1)
    claimed = claim(process.die())
    child = os.fork()
    if not child:
        time.sleep(PATIENCE)
        os._exit(0)
    try:
        time.sleep(0.1)
        os.close(claimed._file)  # as if we had died: nothing is given up
        recorder_claims._held.clear()
        assert list(living.recover()) == [1]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


RECOVERER = """
import json, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_introspect.config import EvidenceConfig
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.processors.recovery import ProviderOutlet, Recovery
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
recovery = Recovery(RecorderDirectory(sys.argv[1]), EvidenceConfig(), ProviderOutlet(lambda: provider, lambda: None))
print("ready", flush=True)
sys.stdin.readline()
while recovery.is_needed():
    recovery.run()
print(json.dumps([span.context.span_id for span in exporter.get_finished_spans()]))
"""


@pytest.mark.realtime
def test_five_recover_at_once(dead, folder):
    """
    However many processes recover at the same time, each request is sent by exactly one of them.
    """
    keys = iter(range(1, 1000))
    expected = set()
    for _ in range(40):
        process = dead()
        for key in [next(keys) for _ in range(5)]:
            process.begin(key)
            expected.add(key)
        process.die()
    command = [sys.executable, "-c", RECOVERER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    recoverers = [subprocess.Popen(command, **pipes) for _ in range(5)]
    for each in recoverers:
        assert each.stdout.readline() == "ready\n"
    for each in recoverers:
        each.stdin.write("\n")
        each.stdin.flush()
    sent = [json.loads(each.communicate(timeout=PATIENCE)[0]) for each in recoverers]

    assert sorted(key for each in sent for key in each) == sorted(expected)
    assert names_in(folder) == []


def test_many_spans_are_flushed_in_portions(dead, living):
    """
    An exporter's queue is never given more than it holds.
    """
    process = dead()
    for key in range(1, 257):
        process.begin(key)
    process.die()

    assert len(living.recover()) == 256
    assert living.flushes == 4


# --- Who takes them -----------------------------------------------------------------------------------------------


class Raising(SpanProcessor):
    def on_end(self, span):
        raise RuntimeError("no")


def test_a_processor_that_raises(dead, living):
    """
    A span processor that raises keeps nobody else from being given the span.
    """
    living.provider._active_span_processor._span_processors = (
        Raising(),
        *living.provider._active_span_processor._span_processors,
    )
    process = dead()
    process.begin(1)
    process.die()

    assert list(living.recover()) == [1]


def test_ours_is_not_given_any(dead, living):
    """
    Our own span processor is not told of the end of a span that it has never seen start.
    """
    ours = WatchdogSpanProcessor(Introspection(IntrospectConfig(recorder=RecorderConfig(directory="none"))))
    living.provider.add_span_processor(ours)
    ended = []
    vars(ours)["on_end"] = ended.append
    process = dead()
    process.begin(1)
    process.die()

    assert list(living.recover()) == [1]
    assert ended == []


def test_without_anybody_to_take_them_they_stay(dead, folder):
    """
    A process that exports nothing leaves them to others.
    """
    living = Living(folder)
    living.provider._active_span_processor._span_processors = ()
    process = dead()
    process.begin(1)
    process.die()

    assert not living.recovery.is_needed()
    assert living.recover() == {}
    assert process.path.exists()


def test_a_disabled_sdk_sends_nothing(dead, folder, monkeypatch):
    """
    Where the SDK is switched off, nothing of a dead process leaves either.
    """
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    process = dead()
    process.begin(1)
    process.die()

    assert Living(folder).recover() == {}
    assert process.path.exists()


@pytest.mark.parametrize("kind", [SimpleSpanProcessor, BatchSpanProcessor])
def test_a_provider_that_is_shut_down_gets_none(dead, folder, kind):
    """
    What a span processor would drop stays for somebody else.
    """
    living = Living(folder)
    living.provider._active_span_processor._span_processors = ()
    living.provider.add_span_processor(kind(living.exporter))
    living.provider.shutdown()
    process = dead()
    process.begin(1)
    process.die()

    assert living.recover() == {}
    assert list(Living(folder).recover()) == [1]


class Refusing(InMemorySpanExporter):
    def export(self, spans):
        return SpanExportResult.FAILURE


def test_what_an_exporter_does_not_deliver_stays(dead, folder):
    """
    Where the exporters are asked straight, a file is removed only if one of them has delivered what was in it.
    """
    process = dead()
    process.begin(1)
    process.die()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Refusing()))
    recovery = Recovery(RecorderDirectory(str(folder)), EvidenceConfig(), ExportersOutlet(provider))

    (unsent,) = recovery.run().processes
    assert (unsent.sent, len(unsent.spans)) == (False, 1)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    recovery = Recovery(RecorderDirectory(str(folder)), EvidenceConfig(), ExportersOutlet(provider))
    (sent,) = recovery.run().processes
    assert (sent.sent, sent.pid) == (True, os.getpid())
    assert names_in(folder) == []


# --- What is not as it should be --------------------------------------------------------------------------------------


def cut(size):
    return lambda path: os.truncate(path, size)


def overwritten(data):
    def overwrite(path):
        with path.open("r+b") as file:
            file.write(data)

    return overwrite


def linked(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def piped(path):
    path.unlink()
    os.mkfifo(path)


def foldered(path):
    path.unlink()
    path.mkdir()


def foreign(path):
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


RANDOM = random.Random(7)
DAMAGES = {
    "empty": (cut(0), "not a whole one"),
    "cut in the magic": (cut(4), "not a whole one"),
    "cut in the header": (cut(1000), "not a whole one"),
    "random": (overwritten(RANDOM.randbytes(recorder_layout.FILE_SIZE)), "no flight recorder's file"),
    "newer": (overwritten(recorder_layout.MAGIC + (2).to_bytes(4, "little")), "version 2"),
    "other sizes": (overwritten(recorder_layout.MAGIC + (1).to_bytes(4, "little") * 2), "sizes"),
    "a link": (linked, "symbolic link"),
    "a pipe": (piped, "not a regular file"),
    "a folder": (foldered, "not a regular file"),
    "foreign": (foreign, "another user"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_t_be_read(dead, living, caplog, damage):
    """
    A file that is not as it should be costs one line in the log, and no other file; it is not removed or followed.
    """
    broken, whole = dead(), dead()
    broken.begin(1)
    whole.begin(2)
    broken.die()
    whole.die()
    spoil, why = DAMAGES[damage]
    spoil(broken.path)

    assert list(living.recover()) == [2]
    assert living.recover() == {}
    (line,) = warnings(caplog)
    assert why in line
    assert os.path.lexists(broken.path) or broken.path.with_suffix(".claimed").exists()
    assert not living.recovery.is_needed()


@pytest.mark.parametrize("size", [16_384, 16_500, 20_000, 20_480, 21_000, 500_000, 1_064_960, 1_065_000, 1_500_000])
def test_a_file_that_was_cut_gives_what_is_left(dead, living, caplog, size):
    """
    Of a file that was cut anywhere behind its header, what is whole is sent.
    """
    process = dead()
    start = 0
    for key in (1, 2, 3):
        start = process.begin(key)
        process.recorder.saw(key, here(), start + 2 * SECOND)
        process.snapshot(key, start + SECOND)
    cut(size)(process.die())

    spans = living.recover()

    assert spans.keys() <= {1, 2, 3}
    assert (1 in spans) is (size > 16_500)
    assert all(span.start_time <= span.end_time for span in spans.values())
    assert warnings(caplog) == []


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes_anywhere(dead, living, seed):
    """
    Whatever bytes are in a file, no exception comes of it, and other files are recovered.
    """
    chance = random.Random(seed)
    broken, whole = dead(), dead()
    for key in range(1, 20):
        start = broken.begin(key)
        broken.recorder.saw(key, here(), start + 2 * SECOND)
        broken.snapshot(key, start + SECOND)
    whole.begin(1000)
    broken.die()
    whole.die()
    data = bytearray(broken.path.read_bytes())
    for _ in range(2000):
        data[chance.randrange(200, 120_000)] = chance.randrange(256)
    broken.path.write_bytes(data)

    assert 1000 in living.recover()
    assert not [each for each in faults.counts if each[0] == "failed"]


def test_a_directory_that_is_not_private(dead, living, folder):
    """
    From a directory that others may write to nothing is recovered, and nobody hears of it more than once.
    """
    process = dead()
    process.begin(1)
    process.die()
    folder.chmod(0o777)

    assert not living.recovery.is_needed()
    assert living.recover() == {}
    folder.chmod(0o700)
    assert list(living.recover()) == [1]


def test_a_directory_that_goes_away(dead, living, folder, monkeypatch):
    """
    A directory that is removed, before or while it is looked through, is no fault.
    """
    process = dead()
    process.begin(1)
    process.die()
    real = recorder_claims.is_own

    def removing(status):
        for each in folder.glob("*"):
            each.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
        return real(status)

    monkeypatch.setattr(recorder_claims, "is_own", removing)

    assert living.recover() == {}
    monkeypatch.undo()
    assert living.recover() == {}
    assert not living.recovery.is_needed()
    assert not [each for each in faults.counts if each[0] == "failed"]


def test_a_full_disk(dead, living, folder, monkeypatch):
    """
    Where there is no room for a file of its own, a process still recovers those of others.
    """
    process = dead()
    process.begin(1)
    process.die()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    own = FlightRecorder(RecorderDirectory(str(folder)), dict)

    assert not own.open()
    assert list(living.recover()) == [1]
    assert names_in(folder) == []


# --- Tidying --------------------------------------------------------------------------------------------------------


def age(path, seconds):
    moment = time.time() - seconds
    os.utime(path, (moment, moment), follow_symlinks=False)


def test_old_files_go(dead, living, folder):
    """
    What can't be read is removed after a week, and so are dumps and unfinished files that nobody needs.
    """
    folder.mkdir(mode=0o700)
    for name in (
        "1-a-b.flight",
        "2-a-b.claimed",
        "3-a-b.dump",
        "4-a-b.making",
        "new.flight",
        "new.making",
        "other.txt",
    ):
        (folder / name).write_bytes(b"x")
        if not name.startswith("new"):
            age(folder / name, 8 * DAY)
    living_one = dead()
    age(living_one.path, 8 * DAY)

    living.recover()

    assert set(names_in(folder)) == {"new.claimed", "new.making", "other.txt", living_one.path.name}
    living_one.recorder.close()


def test_old_things_that_are_not_ours_stay(living, folder):
    """
    Neither a link nor what it leads to is removed, nor a pipe, nor another user's file, however old.
    """
    folder.mkdir(mode=0o700)
    target = folder / "target"
    target.write_bytes(b"x")
    (folder / "a.flight").symlink_to(target)
    os.mkfifo(folder / "b.flight")
    names = ["target", "a.flight", "b.flight"]
    if not os.geteuid():
        (folder / "c.flight").write_bytes(b"x")
        os.chown(folder / "c.flight", 12345, -1)
        names.append("c.flight")
    for each in names:
        age(folder / each, 30 * DAY)

    living.recover()

    assert sorted(names_in(folder)) == sorted(names)


def test_too_many_files_go(living, folder, monkeypatch):
    """
    Of files that are of no use the newest are kept.
    """
    monkeypatch.setattr(recorder_claims, "MAX_FILES", 3)
    folder.mkdir(mode=0o700)
    for number in range(6):
        (folder / f"{number}.dump").write_bytes(b"x")
        age(folder / f"{number}.dump", number)

    assert living.recovery.is_needed()
    living.recover()

    assert sorted(names_in(folder)) == ["0.dump", "1.dump", "2.dump"]
    assert not living.recovery.is_needed()


def test_what_is_not_own_can_t_be_claimed(folder):
    """
    A link in the place of a file is neither followed nor claimed.
    """
    folder.mkdir(mode=0o700)
    (folder / "a.flight").symlink_to("/etc/passwd")

    with pytest.raises(UnreadableRecord, match="symbolic link"):
        claim(folder / "a.flight")
    assert list(abandoned(RecorderDirectory(str(folder)))) == [folder / "a.flight"]


# --- When -----------------------------------------------------------------------------------------------------------


@pytest.fixture(name="introspection")
def _introspection(folder, living, clock):
    introspection = Introspection(
        IntrospectConfig(
            watchdog=WatchdogConfig(observers=("thread",), checkpoint="none"),
            profiler=ProfilerConfig(triggers=()),
            recorder=RecorderConfig(directory=str(folder)),
        ),
        tracer_provider=living.provider,
        clock=clock,
    )
    introspection.introspector.parked = False  # so that no span starts the thread
    living.provider.add_span_processor(WatchdogSpanProcessor(introspection))

    yield introspection

    introspection.stop()


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def sent(living):
    return [span.context.span_id for span in living.exporter.get_finished_spans()]


def test_nothing_starts_where_there_is_nothing_to_recover(introspection, dead):
    """
    A process that finds nothing starts no thread and loads nothing for it, beside living ones, too.
    """
    other = dead()
    other.begin(1)
    before = threading.active_count()

    assert not introspection.recover_soon()
    assert threading.active_count() == before
    assert introspection._recovery is None
    other.recorder.close()


def test_a_server_that_gets_ready_recovers(introspection, dead, living):
    """
    What is found as a server loads its application is sent by another thread.
    """
    process = dead()
    process.begin(1)
    process.die()

    introspection.prepare()

    assert wait_for(lambda: sent(living) == [1])


def test_a_process_at_work_looks_every_ten_seconds(introspection, dead, living, clock):
    """
    A process that is at work sends what its siblings have left, within ten seconds, and does not look all the time.
    """
    span = living.provider.get_tracer(__name__).start_span("GET /", start_time=clock.wall())
    introspection._look()
    process = dead()
    process.begin(1)
    process.die()

    clock.advance(9_000)
    introspection._look()
    assert not introspection._recovery_waits
    clock.advance(1_500)
    introspection._look()
    assert wait_for(lambda: sent(living) == [1])
    span.end()


def test_who_forks_workers_leaves_it_to_them(introspection, dead, living):
    """
    A process whose connections others would share recovers nothing.
    """
    process = dead()
    process.begin(1)
    process.die()
    introspection.recovers = False

    assert not introspection.recover_soon()
    assert sent(living) == []


def test_a_short_process_leaves_it_to_others(introspection, dead, living):
    """
    A process that ends before it would recover does so without delay, and the file stays as it was.
    """
    process = dead()
    process.begin(1)
    process.die()
    assert introspection.recover_soon(settle=PATIENCE)

    began = time.monotonic()
    introspection.stop()

    assert time.monotonic() - began < PATIENCE / 2
    assert process.path.exists()
    assert sent(living) == []


def test_a_forked_child_recovers(introspection, dead, living, tmp_path):
    """
    A forked child sends what it finds, a moment after the fork.
    """
    process = dead()
    process.begin(1)
    process.die()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            wait_for(lambda: sent(living) == [1])
            os.write(write, json.dumps(sent(living)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)

    assert json.loads(said) == [1]


def test_one_round_at_a_time(introspection, dead):
    """
    While one round waits for its turn no other is asked for.
    """
    dead().die()

    assert introspection.recover_soon(settle=PATIENCE)
    assert not introspection.recover_soon()


def test_a_fault_reaches_nobody(introspection, dead, monkeypatch):
    """
    A fault in looking for dead processes is counted, and goes no further.
    """
    monkeypatch.setattr("otel_introspect.introspection.abandoned", lambda _: SimpleNamespace())

    assert not introspection.recover_soon()
    assert faults.counts["failed", "looking for what dead processes have left"] == 1
    gc.collect()


# --- Evidence in log records ----------------------------------------------------------------------------------------


def records_of_the_dead(dead, folder, evidence, logs):
    """What a living process with *evidence* sends of a dead one: the span, and the records."""
    living = Living(folder, evidence, records_of(evidence, lambda: logs.provider))
    process = dead()
    start = process.begin(1)
    process.snapshot(1, start + SECOND)
    process.recorder.saw(1, here(), start + 2 * SECOND)
    process.die()
    (span,) = living.recover().values()
    living.provider.shutdown()
    return start, span, logs.records


def test_evidence_that_went_into_records_comes_as_records(dead, folder):
    """
    In log mode a dead process's snapshots are records with the span's ids and the dead one's resource, marked as
    recovered; the span has none.
    """
    start, span, found = records_of_the_dead(dead, folder, EvidenceConfig(events=("log",)), Logs())

    assert span.events == ()
    assert span.attributes["otel_introspect.snapshots"] == 2
    assert [each.timestamp for each in found] == [start + SECOND, start + 2 * SECOND]
    assert {(each.trace_id, each.span_id, each.flags, each.name) for each in found} == {(1 << 64 | 1, 1, 1, SNAPSHOT)}
    assert {each.resource["service.name"] for each in found} == {"shop"}
    assert {each.attributes["otel_introspect.recovered"] for each in found} == {True}
    assert found[0].attributes["code.stacktrace"] == "  File ..."
    assert not faults.counts


@pytest.mark.parametrize(
    "evidence", [EvidenceConfig(events=("span", "log")), EvidenceConfig(events=("log",), events_bridge=True)]
)
def test_evidence_that_went_to_both(dead, folder, evidence):
    """
    With span,log, or with the bridge, it is on the span and in records.
    """
    _, span, found = records_of_the_dead(dead, folder, evidence, Logs())

    assert [each.timestamp for each in span.events] == [each.timestamp for each in found]


def test_records_that_nobody_would_take(dead, folder):
    """
    Where nobody takes records the evidence is on the span.
    """
    logs = Logs()
    logs.provider.shutdown()
    _, span, found = records_of_the_dead(dead, folder, EvidenceConfig(events=("log",)), logs)

    assert len(span.events) == 2
    assert found == []
    assert not faults.counts


def test_spans_that_were_not_taken_have_no_records_yet(dead, folder):
    """
    What is to be tried again is tried again as a whole.
    """
    logs, evidence = Logs(), EvidenceConfig(events=("log",))
    living = Living(folder, evidence, records_of(evidence, lambda: logs.provider))
    process = dead()
    process.snapshot(1, process.begin(1) + SECOND)
    process.die()
    living.provider.shutdown()

    living.recovery.run()

    assert logs.records == []


def test_a_living_process_makes_them_by_its_settings(folder):
    """
    The recovery that the processor makes emits records if evidence goes there.
    """
    for events, expected in ((("log",), True), (("span",), False)):
        config = IntrospectConfig(
            evidence=EvidenceConfig(events=events), recorder=RecorderConfig(directory=str(folder))
        )
        introspection = Introspection(config)
        WatchdogSpanProcessor(introspection)
        recovery = introspection.make_recovery()
        introspection.stop()

        assert (recovery._records is not None) is expected
