"""What a worker says in its last second, and that gunicorn aborts it as it would without us."""

from __future__ import annotations

import os
import signal
import threading
import time
from importlib.metadata import entry_points

import pytest
from gunicorn.config import Config
from gunicorn.workers.base import Worker
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_introspect import faults
from otel_introspect.config import IntrospectConfig, ProfilerConfig, WatchdogConfig
from otel_introspect.engine.places import Stack
from otel_introspect.errors import RequestInterrupted
from otel_introspect.instrumentation.django.streaming import BodySpan
from otel_introspect.instrumentation.gunicorn import IntrospectGunicornInstrumentor, last_words
from otel_introspect.introspection import Introspection, activate
from otel_introspect.processors.watchdog import WatchdogSpanProcessor

SNAPSHOT = "otel_introspect.stack_snapshot"
LATEST = 5.0  # seconds, for a noisy machine


@pytest.fixture(name="instrumentor")
def _instrumentor():
    """A fresh one, as its base class makes one for the whole process."""
    IntrospectGunicornInstrumentor._instance = None
    instrumentor = IntrospectGunicornInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    IntrospectGunicornInstrumentor._instance = None


class Exporter(InMemorySpanExporter):
    """Stalls while it is told to."""

    def __init__(self):
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def export(self, spans):
        self.may_go_on.wait(LATEST)
        return super().export(spans)

    def await_one(self):
        deadline = time.monotonic() + LATEST
        while not self.get_finished_spans() and time.monotonic() < deadline:
            time.sleep(0.01)


class Service:
    """An instrumented worker, the tracing of its process, and a request that it is stuck in."""

    def __init__(self, worker, **watchdog):
        self.worker = worker
        config = IntrospectConfig(watchdog=WatchdogConfig(**watchdog), profiler=ProfilerConfig(triggers=()))
        self.introspection = Introspection(config)
        self.introspection.introspector.parked = False  # so that no span starts the thread
        self.exporter = Exporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(WatchdogSpanProcessor(self.introspection))
        # By itself it would export long after the test.
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter, schedule_delay_millis=60_000))
        self.introspection.tracer_provider = self.provider
        self.tracer = self.provider.get_tracer(__name__)
        activate(self.introspection)

    def abort(self):
        """What the arbiter does, by another POSIX signal: pytest has faulthandler look after SIGABRT."""
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGUSR1)

    def stuck_request(self):
        """A request during which the worker is aborted."""
        with self.tracer.start_as_current_span("GET /") as span:
            self.abort()
        return span

    def only_span(self):
        (span,) = self.exporter.get_finished_spans()
        return span

    def only_snapshot(self):
        (event,) = self.only_span().events
        assert event.name == SNAPSHOT
        return event.attributes


@pytest.fixture(name="hooked")
def _hooked():
    """What the user's own hook has been called with."""
    return []


@pytest.fixture(name="worker")
def _worker(instrumentor, hooked):
    instrumentor.instrument()
    config = Config()
    config.set("worker_abort", hooked.append)
    worker = Worker(1, os.getppid(), [], None, 1, config, None)
    before = signal.signal(signal.SIGUSR1, worker.handle_abort)
    yield worker
    signal.signal(signal.SIGUSR1, before)
    worker.tmp.close()


@pytest.fixture(name="make_service")
def _make_service(worker):
    made = []

    def make_service(**watchdog):
        made.append(Service(worker, **watchdog))
        return made[-1]

    yield make_service

    for service in made:
        service.exporter.may_go_on.set()
        service.provider.shutdown()


@pytest.fixture(name="service")
def _service(make_service):
    return make_service()


def silent_for(worker, seconds):
    """The arbiter has last heard of *worker* so long ago."""
    then = time.monotonic() - seconds
    os.utime(worker.tmp.fileno(), (then, then))


def test_the_stuck_request_is_ended_marked_and_sent_off(service):
    """
    The span has left the process by the time that gunicorn's own handling begins, as an error that was interrupted.
    """
    service.stuck_request()

    span = service.only_span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.attributes["error.type"] == "WorkerAborted"
    assert span.attributes["otel_introspect.snapshots"] == 1
    assert "otel_introspect.slow" not in span.attributes


def test_the_snapshot_says_where_it_was_stuck(service):
    """
    The event has the stack of the interrupted code, without what interrupts it, and says who took it and when.
    """
    service.stuck_request()

    attributes = service.only_snapshot()
    assert "in stuck_request" in attributes["code.stacktrace"]
    assert "handle_abort" not in attributes["code.stacktrace"]
    assert attributes["otel_introspect.observer"] == "signal"
    assert attributes["thread.id"] == threading.get_ident()
    assert attributes["thread.name"] == "MainThread"
    assert 0 <= attributes["otel_introspect.elapsed_ms"] < 1000 * LATEST
    assert attributes["otel_introspect.lateness_ms"] == 0
    assert attributes["otel_introspect.threshold_ms"] == 1000


def test_a_request_beyond_the_threshold_is_slow(service):
    """
    A span that is older than the threshold is marked as slow, also where the watchdog has had no chance to say so.
    """
    with service.tracer.start_as_current_span("GET /", start_time=time.time_ns() - 3_000_000_000):
        service.abort()

    assert service.only_span().attributes["otel_introspect.slow"] is True


def test_the_status_says_how_long_gunicorn_has_waited(service):
    """
    A worker that has been silent for longer than its timeout was given up on.
    """
    service.worker.cfg.set("timeout", 2)
    silent_for(service.worker, 3)
    service.stuck_request()

    assert service.only_span().status.description == "gunicorn gave up on the worker after 2 s"


def test_an_abort_by_hand_is_not_gunicorn_s(service):
    """
    A worker that was heard of a moment ago was not given up on: somebody else has sent the POSIX signal.
    """
    silent_for(service.worker, 0)
    service.stuck_request()

    assert service.only_span().status.description == "the worker was told to abort"


def test_the_user_s_own_hook_comes_after(service, hooked):
    """
    ``worker_abort`` is called once, with the worker, and finds the span exported.
    """
    service.worker.cfg.set(
        "worker_abort", lambda worker: hooked.append((worker, service.exporter.get_finished_spans()))
    )
    service.stuck_request()

    ((worker, exported),) = hooked
    assert worker is service.worker
    assert worker.alive is False
    assert len(exported) == 1


def test_what_the_hook_raises_is_raised(service):
    """
    An exception from the user's hook takes the way that it takes without us.
    """

    def hook(_worker):
        raise LookupError

    service.worker.cfg.set("worker_abort", hook)
    with service.tracer.start_as_current_span("GET /"), pytest.raises(LookupError):
        signal.raise_signal(signal.SIGUSR1)

    assert len(service.exporter.get_finished_spans()) == 1


def test_ending_it_again_is_no_mistake(service, caplog):
    """
    ``SystemExit`` goes on past those that would end the span; that they do so is not warned of.
    """
    span = service.stuck_request()
    span.end()

    assert [record.getMessage() for record in caplog.records] == []
    assert not span.is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_span_s_lock_in_the_interrupted_code(service, hooked, caplog):
    """
    Code that is interrupted while it holds the span's lock does not hang; the evidence lands once it lets go of it.
    """
    with service.tracer.start_as_current_span("GET /") as span:
        before = time.monotonic()
        with span._lock:
            service.abort()
            assert span.is_recording()
            took = time.monotonic() - before
    service.exporter.await_one()

    assert hooked == [service.worker]
    assert last_words.WRITING_SECONDS <= took < last_words.BOUND_SECONDS
    assert service.only_span().attributes["otel_introspect.interrupted"] is True
    assert "test_the_span_s_lock_in_the_interrupted_code" in service.only_snapshot()["code.stacktrace"]
    assert [record.getMessage() for record in caplog.records] == []


def test_a_collector_that_does_not_answer(service, hooked):
    """
    Gunicorn's own handling begins after the bound at the latest, whatever the export waits for.
    """
    service.exporter.may_go_on.clear()
    before = time.monotonic()
    span = service.stuck_request()
    took = time.monotonic() - before

    assert hooked == [service.worker]
    assert took < 1.0
    assert not span.is_recording()


def test_without_the_watchdog_the_current_span_is_asked(make_service):
    """
    With a threshold of 0 nothing is watched, and the current span still says where it was stuck.
    """
    service = make_service(threshold=0)
    service.stuck_request()

    assert "in stuck_request" in service.only_snapshot()["code.stacktrace"]
    assert service.only_snapshot()["otel_introspect.threshold_ms"] == 0
    assert "otel_introspect.slow" not in service.only_span().attributes


def test_an_exempt_request_shows_no_stack(service):
    """
    A request that is not to be watched is ended, marked and sent off, without a word about where it was.
    """
    with service.tracer.start_as_current_span("GET /") as span:
        service.introspection.table.discard(span.get_span_context().span_id)
        service.abort()

    assert service.only_span().attributes == {"otel_introspect.interrupted": True, "error.type": "WorkerAborted"}
    assert service.only_span().status.status_code is StatusCode.ERROR
    assert service.only_span().events == ()


def test_an_observer_that_is_not_wanted(make_service):
    """
    Where ``signal`` is not among the observers no snapshot is taken; the span is ended and sent off all the same.
    """
    service = make_service(observers=("thread",))
    service.stuck_request()

    assert service.only_span().attributes["otel_introspect.interrupted"] is True
    assert service.only_span().events == ()


def test_nothing_to_say(service, hooked):
    """
    A worker that is aborted without a request, while it loads the application say, is not held up.
    """
    before = time.monotonic()
    service.abort()

    assert time.monotonic() - before < last_words.WRITING_SECONDS
    assert hooked == [service.worker]
    assert service.exporter.get_finished_spans() == ()


def test_what_somebody_has_switched_off(service, hooked):
    """
    Without the instrumentor ``introspect`` nothing is written to anybody's span.
    """
    activate(None)
    service.stuck_request()

    assert hooked == [service.worker]
    assert service.exporter.get_finished_spans() == ()


def test_requests_of_other_threads_go_on(service):
    """
    Only what the main thread is stuck in is ended: other threads may finish theirs within the second.
    """
    spans = []
    thread = threading.Thread(target=lambda: spans.append(service.tracer.start_span("GET /other")))
    thread.start()
    thread.join()
    service.stuck_request()

    assert [span.name for span in service.exporter.get_finished_spans()] == ["GET /"]
    assert spans[0].is_recording()
    spans[0].end()


class Elsewhere:
    """A task's or greenlet's place."""

    def __init__(self, task_state):
        self.task_state = task_state

    def stack(self, frames):
        (thread_id,) = frames
        return Stack([frames[thread_id]], thread_id, self.task_state)


@pytest.mark.parametrize("task_state", ["awaiting", "switched_out"])
def test_parked_tasks_are_left_alone(service, task_state):
    """
    A task or greenlet that shares the thread, but is not what runs there, is not what the worker was stuck in.
    """
    parked = service.tracer.start_span("GET /parked")
    service.introspection.table.relocate(parked.get_span_context().span_id, Elsewhere(task_state))
    service.stuck_request()

    assert [span.name for span in service.exporter.get_finished_spans()] == ["GET /"]
    parked.end()


def test_a_running_task_is_shown_as_one(service):
    """
    The task or greenlet that was interrupted has its own stack and its state on its span.
    """
    with service.tracer.start_as_current_span("GET /") as span:
        service.introspection.table.relocate(span.get_span_context().span_id, Elsewhere("running"))
        service.abort()

    assert service.only_snapshot()["otel_introspect.task.state"] == "running"


def test_the_watchdog_writes_nothing_more(make_service):
    """
    A span that was slow already keeps what the watchdog saw, gets ours behind it, and is looked at no more.
    """
    service = make_service(threshold=1)
    with service.tracer.start_as_current_span("GET /"):
        time.sleep(0.01)
        service.introspection.watchdog.look()
        service.abort()
    service.introspection.watchdog.look()

    observers = [event.attributes["otel_introspect.observer"] for event in service.only_span().events]
    assert observers == ["thread", "signal"]
    assert not service.introspection.table


def test_a_streamed_body_has_a_span_too(service):
    """
    What stands for a body's span becomes one, with the same marks.
    """
    request = service.tracer.start_span("GET /stream")
    service.introspection.table.discard(request.get_span_context().span_id)
    request.end()
    body = BodySpan(request, service.tracer)
    service.introspection.table.add("body", lambda: body, threading.get_ident())
    service.abort()
    body.end(SystemExit())

    assert not service.introspection.table
    _, span = service.exporter.get_finished_spans()
    assert span.name == "GET /stream body"
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "WorkerAborted"
    assert span.attributes["otel_introspect.interrupted"] is True
    assert [event.attributes["otel_introspect.observer"] for event in span.events] == ["signal"]


def test_a_fault_of_ours_does_not_keep_gunicorn_from_aborting(service, hooked, monkeypatch):
    """
    What fails in the handler is counted and not logged, as logging takes a lock; gunicorn's handling goes on.
    """
    monkeypatch.setattr(last_words, "capture", lambda _frames: 1 / 0)
    service.stuck_request()

    assert hooked == [service.worker]
    assert sum(faults.counts.values()) == 1


def test_an_interruption_while_it_waits(service, hooked, monkeypatch):
    """
    Another POSIX signal's handler that raises meanwhile, a deadline's say, does not keep gunicorn from aborting either.
    """

    def wait(_last_words):
        raise RequestInterrupted

    monkeypatch.setattr(last_words.LastWords, "wait", wait)
    service.stuck_request()

    assert hooked == [service.worker]


def test_a_span_that_ends_meanwhile(service, caplog):
    """
    A span that has ended, though it is not out of the table yet, is not ended again.
    """
    span = service.tracer.start_span("GET /")
    span.end()
    service.introspection.table.add(span.get_span_context().span_id, lambda: span, threading.get_ident())
    service.abort()

    assert [record.getMessage() for record in caplog.records] == []
    assert span.attributes == {}


def test_a_machine_without_threads_left(service, hooked, monkeypatch):
    """
    Where no thread can be started gunicorn's handling goes on.
    """

    def original(_name):
        def start_new_thread(_run, _args):
            raise RuntimeError("can't start new thread")

        return start_new_thread

    monkeypatch.setattr(last_words.native, "_original", original)
    monkeypatch.setattr(last_words.native, "allocate_lock", threading.Lock)
    service.stuck_request()

    assert hooked == [service.worker]
    assert sum(faults.counts.values()) == 1


def test_a_worker_gets_ready_before_its_first_request(service, monkeypatch):
    """
    What a slow span will need is loaded with the application.
    """
    prepared = []
    monkeypatch.setattr(service.introspection, "prepare", lambda: prepared.append(True))
    service.worker.app = type("App", (), {"wsgi": staticmethod(lambda: "application")})
    service.worker.load_wsgi()

    assert prepared == [True]
    assert service.worker.wsgi == "application"


def test_uninstrument_gives_everything_back(instrumentor):
    """
    Gunicorn's worker is what it was, however often we were switched on.
    """
    before = Worker.handle_abort, Worker.load_wsgi
    instrumentor.instrument()
    instrumentor._instrument()
    assert Worker.handle_abort is not before[0]
    instrumentor.uninstrument()

    assert (Worker.handle_abort, Worker.load_wsgi) == before


def test_a_handler_that_is_installed_does_nothing_once_it_is_not_wanted(service, instrumentor, hooked):
    """
    A running worker keeps the handler that it has installed; switched off, that leaves everything to gunicorn's.
    """
    instrumentor.uninstrument()
    service.stuck_request()
    service.provider.force_flush()

    assert hooked == [service.worker]
    assert "otel_introspect.interrupted" not in service.only_span().attributes


def test_it_depends_on_nothing(instrumentor):
    """
    No package has to be there for it.
    """
    assert list(instrumentor.instrumentation_dependencies()) == []


def test_the_launcher_finds_it():
    """
    The entry point has the name by which users switch it off.
    """
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="introspect_gunicorn")

    assert entry.load() is IntrospectGunicornInstrumentor
