"""What the alarm gets through to in the main thread, and how late at most."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest
from interruptions import FOREVER, Expired, spin

from otel_introspect import timeout

LIMIT = 0.2
LATE = 0.5


def regular_expression():
    re.match(r"^(a+)+$", "a" * 32 + "!")


def sleep():
    time.sleep(FOREVER)


def busy():
    spin(FOREVER)


def sort():
    for _ in range(10_000):
        sorted(range(100_000), key=lambda number: -number)


def lock():
    taken = threading.Lock()
    taken.acquire()
    taken.acquire(timeout=FOREVER)


def lock_without_a_timeout():
    taken = threading.Lock()
    taken.acquire()
    taken.acquire()


def receive():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def receive_with_a_timeout():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(FOREVER)
        ours.recv(1)


def accept():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.accept()


def select_nothing():
    select.select([], [], [], FOREVER)


def poll_nothing():
    select.poll().poll(FOREVER * 1000)


def child_process():
    subprocess.run(["sleep", "30"], check=False)


def child_process_with_output():
    subprocess.run(["sleep", "30"], check=False, capture_output=True)


def wait_for_a_child():
    child = os.posix_spawn("/bin/sleep", ["sleep", "30"], os.environ)
    try:
        os.waitpid(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def event():
    threading.Event().wait()


def event_with_a_timeout():
    threading.Event().wait(FOREVER)


def condition():
    waiting = threading.Condition()
    with waiting:
        waiting.wait()


def semaphore():
    threading.Semaphore(0).acquire()


def barrier():
    threading.Barrier(2).wait()


def empty_queue():
    queue.Queue().get()


def empty_queue_with_a_timeout():
    queue.Queue().get(timeout=FOREVER)


def full_queue():
    full = queue.Queue(1)
    full.put(1)
    full.put(2)


def simple_queue():
    queue.SimpleQueue().get()


CALLS = [
    regular_expression,
    sleep,
    busy,
    sort,
    lock,
    lock_without_a_timeout,
    receive,
    receive_with_a_timeout,
    accept,
    select_nothing,
    poll_nothing,
    child_process,
    child_process_with_output,
    wait_for_a_child,
    event,
    event_with_a_timeout,
    condition,
    semaphore,
    barrier,
    empty_queue,
    empty_queue_with_a_timeout,
    full_queue,
    simple_queue,
]


def lateness(work):
    """How long after its deadline *work* was interrupted."""
    started = time.monotonic()
    with pytest.raises(Expired), timeout(LIMIT, Expired):
        work()
    return time.monotonic() - started - LIMIT


@pytest.mark.parametrize("work", CALLS, ids=lambda each: each.__name__)
def test_it_is_interrupted_on_time(work):
    """
    In the main thread what waits or computes is interrupted at most half a second after its deadline.
    """
    late = lateness(work)

    assert -0.02 <= late < LATE


def test_a_file_lock(tmp_path):
    """
    Waiting for a file that somebody else has locked is interrupted on time, and the lock can be had afterwards.
    """
    path = tmp_path / "locked"
    with path.open("w") as first, path.open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        late = lateness(lambda: fcntl.flock(second, fcntl.LOCK_EX))
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert late < LATE


def test_joining_a_thread():
    """
    Waiting for a thread is interrupted on time, and the thread can be joined afterwards.
    """
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        late = lateness(thread.join)
    finally:
        over.set()
        thread.join()

    assert late < LATE
    assert not thread.is_alive()


def test_the_child_of_an_interrupted_run_is_gone():
    """
    ``subprocess.run`` that is interrupted kills its child, as it does on any exception.
    """
    pids = []

    class Remembered(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            pids.append(self.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Remembered)
        lateness(child_process)

    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_what_was_waited_for_works_afterwards():
    """
    Event, condition, queue and lock can be used after a wait for them was interrupted.
    """
    event_, condition_, queue_, lock_ = threading.Event(), threading.Condition(), queue.Queue(), threading.Lock()
    lock_.acquire()

    def wait_for_condition():
        with condition_:
            condition_.wait()

    for wait in (event_.wait, wait_for_condition, queue_.get, lock_.acquire):
        lateness(wait)
    lock_.release()
    event_.set()
    queue_.put(1)

    def notify():
        with condition_:
            condition_.notify_all()

    with condition_:
        threading.Timer(0.05, notify).start()
        assert condition_.wait(FOREVER)
    assert event_.wait(FOREVER)
    assert queue_.get(timeout=FOREVER) == 1
    assert lock_.acquire(timeout=FOREVER)


def test_it_is_interrupted_on_time_beside_busy_threads():
    """
    Other threads that are busy put an interruption off a little, but not for long.
    """
    over = threading.Event()

    def be_busy():
        while not over.is_set():
            spin(0.005)

    others = [threading.Thread(target=be_busy) for _ in range(2)]
    for each in others:
        each.start()
    try:
        late = [lateness(busy), lateness(sleep)]
    finally:
        over.set()
        for each in others:
            each.join()

    assert max(late) < LATE


def test_a_read_that_somebody_answers_is_not_disturbed():
    """
    A call that is answered in time returns what it was answered, although alarms went off beside it.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, timeout(FOREVER, Expired):
        with contextlib.suppress(Expired), timeout(0.05, Expired):
            time.sleep(FOREVER)
        threading.Timer(0.2, theirs.send, [b"answer"]).start()

        assert ours.recv(100) == b"answer"
