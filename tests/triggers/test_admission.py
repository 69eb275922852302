"""How many explicit profiles there may be."""

from __future__ import annotations

import contextlib
import gc
import os
import threading

import pytest

from otel_introspect.faults import counts
from otel_introspect.triggers.admission import BURST, REFILL_SECONDS, Admission
from otel_introspect.triggers.refusal import Refused


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="seconds")
def _seconds():
    return Seconds()


@pytest.fixture(name="admission")
def _admission(seconds):
    return Admission(seconds)


def reason_of(admission, *, limited=True):
    """Why there is no profile now; None if there would be, in which case it is over at once."""
    try:
        admission.enter(limited=limited).leave()
    except Refused as refusal:
        return refusal.reason
    return None


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_one_at_a_time(admission, first, second):
    """
    While one profile is being taken there is no other, whoever asks; after it there is.
    """
    ticket = admission.enter(limited=first)

    assert reason_of(admission, limited=second) == "busy"
    assert counts == {("refused", "profile: busy"): 1}

    ticket.leave()
    assert reason_of(admission, limited=second) is None


def test_leaving_twice_is_leaving_once(admission):
    """
    A ticket that was left already does not give away the place of the next one.
    """
    first = admission.enter(limited=True)
    first.leave()
    second = admission.enter(limited=True)
    first.leave()

    assert (first.left, second.left) == (True, False)
    assert reason_of(admission) == "busy"


def test_leaving_on_another_thread(admission):
    """
    The place may be given back on another thread than it was taken on.
    """
    ticket = admission.enter(limited=True)
    thread = threading.Thread(target=ticket.leave)
    thread.start()
    thread.join()

    assert reason_of(admission) is None


def test_a_ticket_that_is_lost_gives_its_place_back(admission):
    """
    A ticket that nobody has any more, or only a cycle that is collected, does not hold the place for ever.
    """
    admission.enter(limited=True)
    assert reason_of(admission) is None

    cycle = [admission.enter(limited=True)]
    cycle.append(cycle)
    assert reason_of(admission) == "busy"
    del cycle
    gc.collect()
    assert reason_of(admission) is None


def test_ten_at_once_then_one_each_six_seconds(admission, seconds):
    """
    Ten remote requests may be profiled in a row, then one more every six seconds.
    """
    assert (BURST, REFILL_SECONDS) == (10, 6)
    assert [reason_of(admission) for _ in range(12)] == [None] * 10 + ["rate"] * 2

    seconds.now += 5.9
    assert reason_of(admission) == "rate"
    seconds.now += 0.2
    assert [reason_of(admission), reason_of(admission)] == [None, "rate"]
    seconds.now += 12
    assert [reason_of(admission) for _ in range(3)] == [None, None, "rate"]


def test_there_is_never_room_for_more_than_ten(admission, seconds):
    """
    A quiet day does not save up more than ten.
    """
    seconds.now += 86_400

    assert [reason_of(admission) for _ in range(11)] == [None] * 10 + ["rate"]


def test_the_application_s_own_profiles_are_not_limited(admission):
    """
    What the application's own code asks for counts against nothing but the one place, and takes no remote one's room.
    """
    assert [reason_of(admission, limited=False) for _ in range(100)] == [None] * 100
    assert [reason_of(admission) for _ in range(11)] == [None] * 10 + ["rate"]
    assert reason_of(admission, limited=False) is None


def test_who_finds_it_busy_has_spent_nothing(admission):
    """
    A request that is refused because another one is being profiled may come again.
    """
    ticket = admission.enter(limited=False)
    assert [reason_of(admission) for _ in range(50)] == ["busy"] * 50
    ticket.leave()

    assert [reason_of(admission) for _ in range(11)] == [None] * 10 + ["rate"]


def test_who_is_refused_for_the_rate_holds_no_place(admission):
    """
    A request that comes too soon does not keep the application from profiling itself.
    """
    for _ in range(11):
        reason_of(admission)

    assert reason_of(admission, limited=False) is None


def test_one_of_many_threads_enters(admission):
    """
    Of many threads that ask at the same moment exactly one enters, each time.
    """
    for _ in range(50):
        barrier, entered = threading.Barrier(8), []

        def enter(barrier=barrier, entered=entered):
            barrier.wait()
            with contextlib.suppress(Refused):
                entered.append(admission.enter(limited=False))

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (ticket,) = entered
        ticket.leave()


def test_a_forked_child_is_free(admission):
    """
    A child that is forked while its parent is profiling, and in the middle of a thread's asking, may profile itself;
    the parent's limit holds in it.
    """
    ticket = admission.enter(limited=True)
    with admission._lock:
        child = os.fork()
        if not child:
            # As a thread that is not there any more would have left it.
            thread = threading.Thread(target=lambda: (admission.after_fork(), reasons.extend(ask() for _ in range(10))))
            reasons: list[str | None] = []

            def ask():
                return reason_of(admission)

            thread.start()
            thread.join(20)
            os._exit(0 if reasons == [None] * 9 + ["rate"] else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reason_of(admission) == "busy"
    assert not ticket.left


def test_the_parent_s_ticket_means_nothing_in_the_child(admission):
    """
    A ticket from before the fork, left in the child, does not give away the child's own place.
    """
    ticket = admission.enter(limited=True)
    admission.after_fork()
    own = admission.enter(limited=True)
    ticket.leave()

    assert reason_of(admission) == "busy"
    own.leave()
    assert reason_of(admission) is None


def test_the_clock_is_the_monotonic_one():
    """
    Without a clock of its own it goes by one that nobody sets.
    """
    admission = Admission()

    assert [reason_of(admission) for _ in range(11)] == [None] * 10 + ["rate"]
