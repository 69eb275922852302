"""In a greenlet: gevent's own timeout, so that neither its hub nor another greenlet is hit."""

from __future__ import annotations

import textwrap

import pytest
from interruptions import run_script, script

pytest.importorskip("gevent")

PATCHED = "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
UNPATCHED = "import gevent\n"
patched_or_not = pytest.mark.parametrize("start", [PATCHED, UNPATCHED], ids=["patched", "unpatched"])


def run(text, start=PATCHED):
    (found, *more), _ = run_script(start + script(textwrap.dedent(text), tracing=True))
    assert more == []
    return found


@patched_or_not
def test_a_greenlet_is_interrupted_and_no_other(start):
    """
    A greenlet that waits for too long gets the limit's exception; those beside it, and the hub, go on.
    """
    found = run(
        """
        def limited():
            with timeout(0.1, Expired):
                gevent.sleep(20)
        def unlimited():
            for _ in range(60):
                gevent.sleep(0.005)
            return "unlimited"
        hit = gevent.spawn(outcome, limited)
        others = [gevent.spawn(outcome, unlimited) for _ in range(5)]
        gevent.joinall([hit, *others], timeout=15)
        say(hit.value, *[each.value for each in others])
        """,
        start,
    )

    assert found == ["Expired", *["unlimited"] * 5]


@patched_or_not
def test_greenlets_have_a_limit_each(start):
    """
    Of many greenlets with limits each gets its own exception, and those in time get none, later neither.
    """
    found = run(
        """
        def work(number):
            try:
                with timeout(0.1 if number % 2 else 10, Expired(number)):
                    gevent.sleep(20 if number % 2 else 0.01)
            except Expired as error:
                return error.args
            gevent.sleep(0.3)
            return ()
        greenlets = [gevent.spawn(work, number) for number in range(20)]
        gevent.joinall(greenlets, timeout=15)
        say([list(each.value) for each in greenlets])
        """,
        start,
    )

    assert found == [[[number] if number % 2 else [] for number in range(20)]]


@patched_or_not
def test_limits_nest_in_a_greenlet(start):
    """
    Limits nest in a greenlet as they do elsewhere.
    """
    found = run(
        """
        def inner_first():
            seen = []
            try:
                with timeout(0.3, Outer):
                    try:
                        with timeout(0.1, Inner): gevent.sleep(20)
                    except Inner:
                        seen.append("Inner")
                    gevent.sleep(20)
            except Outer:
                seen.append("Outer")
            return seen
        def inner_longer():
            with timeout(0.1, Outer), timeout(10, Inner): gevent.sleep(20)
        def inner_done():
            with timeout(0.1, Outer):
                with timeout(0.05, Inner): pass
                gevent.sleep(20)
        greenlets = [gevent.spawn(outcome, each) for each in (inner_first, inner_longer, inner_done)]
        gevent.joinall(greenlets, timeout=15)
        say(*[each.value for each in greenlets])
        """,
        start,
    )

    assert found == [["Inner", "Outer"], "Outer", "Outer"]


def test_the_main_greenlet_of_a_patched_process():
    """
    In a patched process the main greenlet is one among others: its limit does not hit the hub that runs them.
    """
    found = run(
        """
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.005)
        ticking = gevent.spawn(tick)
        def work():
            with timeout(0.1, Expired): time.sleep(20)
        results = [outcome(work) for _ in range(5)]
        before = len(ticks)
        time.sleep(0.2)
        say(results, before > 5, len(ticks) > before, ticking.dead)
        """
    )

    assert found == [["Expired"] * 5, True, True, False]


@patched_or_not
def test_the_event_names_the_greenlet(start):
    """
    The evidence says that it was a greenlet that was interrupted, and where it waited.
    """
    found = run(
        """
        def waits_here():
            gevent.sleep(20)
        def work():
            with tracer.start_as_current_span("work"):
                try:
                    with timeout(0.1, Expired): waits_here()
                except Expired:
                    pass
        gevent.spawn(work).join(timeout=15)
        (event,) = events()
        say(event["otel_introspect.timeout.mechanism"], event["otel_introspect.timeout.enforced"],
            event["otel_introspect.timeout.limit_ms"], "waits_here" in event["code.stacktrace"])
        """,
        start,
    )

    assert found == ["greenlet", True, 100, True]


def test_patched_locks_and_queues():
    """
    What a patched program waits for is interrupted, and can be used afterwards.
    """
    found = run(
        """
        import queue
        lock, items, event = threading.Lock(), queue.Queue(), threading.Event()
        lock.acquire()
        def waiting(wait):
            with timeout(0.1, Expired): wait()
        greenlets = [gevent.spawn(outcome, waiting, each) for each in (lock.acquire, items.get, event.wait)]
        gevent.joinall(greenlets, timeout=15)
        lock.release()
        items.put(1)
        event.set()
        say([each.value for each in greenlets], lock.acquire(timeout=5), items.get(timeout=5), event.wait(timeout=5))
        """
    )

    assert found == [["Expired"] * 3, True, 1, True]
