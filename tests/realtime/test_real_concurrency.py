"""Requests at once, on threads, on one event loop and on greenlets: neither's evidence shows the other."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.realtime

NAMES = ["alpha", "beta", "gamma", "busy", "delta", "epsilon", "zeta", "eta"]
SYNC = ["/alpha?seconds=0.8", "/beta?seconds=0.9", "/gamma?seconds=0.7", "/busy?seconds=0.5"]
ASYNC = ["/async/delta?seconds=0.8", "/async/epsilon?seconds=0.9", "/async/zeta?seconds=1.0", "/async/eta?seconds=0.8"]


def foreign_names(span, own):
    """The functions of other requests in all that is ours on *span*."""
    words = "\n".join(each.words for each in span.events if each.name.startswith("otel_introspect"))
    return {name for name in NAMES if name != own and re.search(rf"\b{name}(_step|_blocking)?\b", words)}


def check(service, paths, rounds):
    seen = 0
    for _ in range(rounds):
        for path, answer in zip(paths, service.get_all(paths), strict=True):
            own = re.search(r"(\w+)\?", path)[1]
            assert answer.body == own
            span = service.entry(answer.trace_id)
            assert foreign_names(span, own) == set()
            seen += len(span.snapshots)
    return seen


@pytest.mark.parametrize("kind", ["gthread", "runserver"])
def test_threads_do_not_mix(services, kind):
    """
    Of several requests at once on threads, each one's evidence holds its own frames only.
    """
    seen = check(services(kind), SYNC * 2, 3)

    assert seen >= 3 * 8


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-instrumented"])
def test_tasks_do_not_mix(services, kind):
    """
    Of many requests at once on one event loop, each one's evidence holds its own frames only.
    """
    seen = check(services(kind), ASYNC * 3, 4)

    assert seen >= 4 * 8


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-instrumented"])
def test_tasks_and_their_threads_do_not_mix(services, kind):
    """
    The same where synchronous views, which share a thread, run beside asynchronous ones.
    """
    check(services(kind), [*ASYNC, *SYNC[:3], *ASYNC], 3)


def test_greenlets_do_not_mix(services):
    """
    Of many requests at once on greenlets of one thread, each one's evidence holds its own frames only.
    """
    check(services("gevent"), SYNC * 3, 3)


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-instrumented"])
def test_who_blocks_the_loop_is_shown_on_his_own_span_only(services, kind):
    """
    A request parked on an await shows that await while another one blocks the event loop, which shows itself.
    """
    service = services(kind)
    parked, blocking = service.get_all(["/async/nested?seconds=1.5", "/async/blocking?seconds=1.5"])

    parked, blocking = service.entry(parked.trace_id), service.entry(blocking.trace_id)
    assert parked.snapshots
    assert all("blocking" not in each.words for each in parked.snapshots)
    assert any("in innermost" in each.stack for each in parked.snapshots)
    assert any(each.attributes["otel_introspect.task.state"] == "awaiting" for each in parked.snapshots)
    assert blocking.snapshots
    for each in blocking.snapshots:
        assert "in blocking_helper" in each.stack
        assert each.attributes["otel_introspect.task.state"] == "running"
