"""The courier: what is finished leaves the process, and whatever that takes nobody waits for it."""

from __future__ import annotations

import os
import threading
import time

import pytest
from log_records import Memory
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from profiled import until

from otel_introspect import faults
from otel_introspect.sinks import courier as courier_module
from otel_introspect.sinks.courier import COURIER_NAME, MAX_WAITING, Courier
from otel_introspect.sinks.log_emission import LogEvent, emit


def threads():
    return [thread for thread in threading.enumerate() if thread.name == COURIER_NAME]


class Provider:
    """Notes each flush, and keeps it waiting until ``answer`` is set."""

    def __init__(self):
        self.flushes = []
        self.answer = threading.Event()
        self.answer.set()

    def force_flush(self, timeout_millis):
        self.flushes.append((threading.current_thread().name, timeout_millis))
        self.answer.wait(20)
        return True


@pytest.fixture(name="provider")
def _provider():
    return Provider()


@pytest.fixture(name="courier")
def _courier(provider):
    courier = Courier(lambda: provider)

    yield courier

    provider.answer.set()
    courier.stop()
    until(lambda: threads() == [])


def test_there_is_no_thread_before_there_is_something_to_do(courier):
    """
    Making one starts nothing.
    """
    assert threads() == []


def test_a_flush_is_bounded_and_on_its_own_thread(courier, provider):
    """
    The provider is told how long it may take, and asked on a thread that may block.
    """
    assert courier.flush_soon()

    until(lambda: provider.flushes)
    ((name, milliseconds),) = provider.flushes
    assert name == COURIER_NAME
    assert type(milliseconds) is int
    assert 0 < milliseconds <= 5000


def test_many_wishes_are_one_flush(courier, provider):
    """
    What is wished for while a flush is on its way is one flush more, not many.
    """
    provider.answer.clear()
    courier.flush_soon()
    until(lambda: provider.flushes)

    for _ in range(1000):
        courier.flush_soon()
    provider.answer.set()

    until(lambda: len(provider.flushes) == 2)
    time.sleep(1.2)
    assert len(provider.flushes) == 2


def test_one_thread_only(courier, provider):
    """
    However many ask at once, there is one thread.
    """
    provider.answer.clear()
    askers = [threading.Thread(target=courier.flush_soon) for _ in range(20)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()

    until(lambda: provider.flushes)
    assert len(threads()) == 1


def test_a_provider_that_never_answers_keeps_nobody_waiting(courier, provider):
    """
    Who asks gets their answer at once, nothing grows, and what finds no room is counted.
    """
    provider.answer.clear()
    courier.flush_soon()
    until(lambda: provider.flushes)
    done = []

    began = time.monotonic()
    taken = [courier.run(lambda: done.append(None)) for _ in range(MAX_WAITING + 10)]

    assert time.monotonic() - began < 2
    assert taken == [True] * MAX_WAITING + [False] * 10
    assert faults.counts["dropped", "the courier is behind"] == 10
    provider.answer.set()
    until(lambda: len(done) == MAX_WAITING)


def test_jobs_are_done_before_the_flush(courier, provider):
    """
    What a job has finished is in the flush that it wishes for.
    """
    seen = []

    def job():
        courier.flush_soon()
        seen.append(len(provider.flushes))

    courier.run(job)

    until(lambda: provider.flushes)
    assert seen == [0]


def test_a_job_that_raises_costs_itself_only(courier):
    """
    The next one is done, and the fault is counted.
    """
    done = []

    courier.run(lambda: 1 / 0)
    courier.run(lambda: done.append(True))

    until(lambda: done)
    assert faults.counts["failed", "running a job of the courier's"] == 1


def test_a_flush_that_raises_is_tried_again(courier, provider, monkeypatch):
    """
    A provider that raises is asked again when there is something new.
    """
    asked = []

    def force_flush(timeout_millis):
        asked.append(timeout_millis)
        raise OSError

    monkeypatch.setattr(provider, "force_flush", force_flush)
    courier.flush_soon()
    until(lambda: len(asked) == 1)
    courier.flush_soon()

    until(lambda: len(asked) == 2)
    assert faults.counts["failed", "flushing"] >= 1


def test_a_provider_without_flush():
    """
    The API's own provider has none, and nothing happens.
    """
    courier = Courier(object)

    courier.flush_soon()

    courier.stop()
    until(lambda: threads() == [])
    assert faults.counts == {}


def test_records_made_by_exporting_are_not_flushed_for_ever():
    """
    An exporter that logs while it exports, where logging becomes records, is asked once for each batch that waits.
    """
    exported = []
    logger_provider = LoggerProvider(shutdown_on_exit=False)
    logger = logger_provider.get_logger("its own")
    event = LogEvent("again", Context(), 1, 1, SeverityNumber.DEBUG, "POST 200", {})

    class Exporter(Memory):
        def export(self, batch):
            exported.append(len(batch))
            if len(exported) < 50:  # or a test that fails would not end
                emit(logger, event)
            return super().export(batch)

    logger_provider.add_log_record_processor(
        BatchLogRecordProcessor(Exporter(), schedule_delay_millis=60_000, max_export_batch_size=2)
    )
    # One by one, so that its own thread has no full batch to send.
    emit(logger, event)
    courier_module.flush(logger_provider, 5)
    courier_module.flush(logger_provider, 5)
    logger_provider.shutdown()

    assert exported[:2] == [1, 1]
    assert len(exported) <= 4


def test_the_thread_ends_when_there_is_nothing_to_do(courier, provider, monkeypatch):
    """
    An idle process has no thread of this kind; the next wish starts another.
    """
    monkeypatch.setattr(courier_module, "_IDLE_SECONDS", 0.05)
    courier.flush_soon()
    until(lambda: provider.flushes)

    until(lambda: threads() == [])

    courier.flush_soon()
    until(lambda: len(provider.flushes) == 2)


def test_stop_waits_a_little_only(courier, provider):
    """
    A flush that is never answered does not keep anybody from stopping; what still waits is dropped and counted.
    """
    provider.answer.clear()
    courier.flush_soon()
    until(lambda: provider.flushes)
    courier.run(lambda: None)

    began = time.monotonic()
    courier.stop()

    assert time.monotonic() - began < 5
    provider.answer.set()
    until(lambda: threads() == [])
    assert faults.counts["dropped", "the courier was stopped"] == 1


def test_no_thread_can_be_started(courier, monkeypatch):
    """
    A machine without threads left is survived, and the next wish tries again.
    """

    def start_thread(run, name):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(courier_module, "start_thread", start_thread)
        assert not courier.flush_soon()

    assert courier.flush_soon()


@pytest.mark.realtime
def test_a_forked_child_has_its_own(courier, provider):
    """
    A child that is forked while a flush is on its way flushes by itself.
    """
    provider.answer.clear()
    courier.flush_soon()
    until(lambda: provider.flushes)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            provider.flushes.clear()
            provider.answer = threading.Event()
            provider.answer.set()
            courier.flush_soon()
            until(lambda: provider.flushes)
            status = 0
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
