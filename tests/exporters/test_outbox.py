"""Who is told of how many slow requests by how many mails."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_introspect.exporters.outbox import OTHERS, WINDOW, Outbox
from otel_introspect.exporters.span_view import SpanView


def request(route="r/", seconds=1):
    return SpanView(
        trace_id="1" * 32,
        span_id="2" * 16,
        parent_id="",
        entry=True,
        name=route,
        kind="SERVER",
        start_ns=10**18,
        end_ns=10**18 + seconds * 10**9,
    )


def send(outbox, now):
    """All that may be sent now; returns for how many requests each mail stands."""
    sent = []
    while (batch := outbox.take(now)) is not None:
        outbox.sent(now)
        sent.append(batch.count)
    return sent


def test_the_first_of_a_group_is_told_at_once():
    """
    The first request is due at once, further ones of its group an hour later, together.
    """
    outbox = Outbox(20)
    outbox.add(request(), 0.0)

    assert outbox.due_in(0.0) == 0
    assert send(outbox, 0.0) == [1]
    assert outbox.due_in(0.0) is None
    for seconds in (3, 7, 5):
        outbox.add(request(seconds=seconds), 10.0)
    assert send(outbox, 10.0) == []
    assert outbox.due_in(10.0) == WINDOW - 10
    batch = outbox.take(WINDOW)
    assert batch.count == 3
    assert batch.portions[0].example.duration_ns == 7 * 10**9
    assert outbox.waiting == 0


def test_another_group_does_not_wait_for_the_first():
    """
    Each group has an hour of its own.
    """
    outbox = Outbox(20)
    outbox.add(request("a/"), 0.0)
    outbox.add(request("b/"), 0.0)

    assert send(outbox, 0.0) == [1, 1]


def test_one_mail_is_kept_for_the_end():
    """
    However many groups there are, the process can tell the rest as it ends.
    """
    outbox = Outbox(3)
    for number in range(10):
        outbox.add(request(f"{number}/"), 0.0)

    assert send(outbox, 0.0) == [1, 1]
    assert outbox.due_in(0.0) == WINDOW
    batch = outbox.take_all(0.0)
    assert (batch.count, batch.last) == (8, True)
    outbox.sent(0.0)
    outbox.add(request(), 1.0)
    assert outbox.take_all(1.0) is None


def test_a_limit_of_one():
    """
    With a single mail an hour the first one goes at once.
    """
    outbox = Outbox(1)
    for _ in range(5):
        outbox.add(request(), 0.0)

    assert send(outbox, 0.0) == [5]
    outbox.add(request("b/"), 0.0)
    assert send(outbox, WINDOW - 1) == []
    assert outbox.due_in(0.0) == WINDOW
    assert send(outbox, WINDOW) == [1]


def test_groups_are_bounded():
    """
    What is above the number of groups shares one, and old ones that were told make room.
    """
    outbox = Outbox(1000, max_groups=5)
    for number in range(20):
        outbox.add(request(f"{number}/"), 0.0)

    assert len(outbox._groups) == 6
    assert outbox._groups[OTHERS].waiting.count == 15
    assert sum(send(outbox, 0.0)) == 20
    outbox.add(request("new/"), WINDOW)
    assert len(outbox._groups) == 1


def test_what_was_not_sent_is_told_later():
    """
    After a failure there is a pause, which grows; then one mail stands for what was to be told before and since.
    """
    outbox = Outbox(20)
    outbox.add(request(), 0.0)
    pauses = []
    now = 0.0
    for _ in range(10):
        batch = outbox.take(now)
        outbox.not_sent(batch, now, maybe=False)
        assert outbox.take(now) is None
        outbox.add(request(), now)
        pauses.append(outbox.due_in(now))
        now += pauses[-1]
    batch = outbox.take(now)

    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert (batch.count, batch.failed) == (11, 10)


def test_what_may_have_been_sent_counts_for_the_limit():
    """
    A server that takes mails and does not say so gets no more of them than another.
    """
    outbox = Outbox(3)
    outbox.add(request(), 0.0)
    now, attempts = 0.0, deque()
    while now < 10 * WINDOW:
        batch = outbox.take(now)
        if batch is not None:
            outbox.not_sent(batch, now, maybe=True)
            attempts.append(now)
        now += max(outbox.due_in(now), 1.0)

    assert all(later - earlier >= WINDOW for earlier, later in zip(attempts, list(attempts)[3:], strict=False))
    assert outbox.waiting == 1


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 6),
    steps=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["ok", "no", "maybe"]), st.integers(0, 1500))),
)
def test_nobody_is_lost(limit, steps):
    """
    Whatever comes and whatever fails: told and waiting add up, and no hour has more mails than the limit.
    """
    outbox = Outbox(limit, max_groups=4)
    now, told, sent = 0.0, 0, []
    for added, (route, outcome, pause) in enumerate(steps, 1):
        outbox.add(request(f"{route}/"), now)
        batch = outbox.take(now)
        if batch is not None and outcome == "ok":
            outbox.sent(now)
            told += batch.count
            sent.append(now)
        elif batch is not None:
            outbox.not_sent(batch, now, maybe=outcome == "maybe")
            sent += [now] if outcome == "maybe" else []
        assert told + outbox.waiting == added
        assert outbox.waiting == sum(each.waiting.count for each in outbox._groups.values() if each.waiting)
        assert len(outbox._groups) <= 5
        now += pause
    assert all(later - earlier >= WINDOW for earlier, later in zip(sent, sent[limit:], strict=False))


@pytest.mark.parametrize("waiting", [0, 3])
def test_the_end(waiting):
    """
    At the end all is told by one mail, also of groups that were told just now; or by none if there is nothing.
    """
    outbox = Outbox(20)
    outbox.add(request(), 0.0)
    send(outbox, 0.0)
    for _ in range(waiting):
        outbox.add(request(), 1.0)
    batch = outbox.take_all(1.0)

    assert (batch.count if batch else 0) == waiting
