"""What is submitted to pools of threads tells which request it works for, and nobody notices."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures.thread import ThreadPoolExecutor as SamePool

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from otel_introspect.engine import handover
from otel_introspect.engine.handover import origin_here, threads_of
from otel_introspect.profiling import pools

PATIENCE = 10
plain_submit = ThreadPoolExecutor.submit


@pytest.fixture(autouse=True)
def _followed():
    token = handover.current.set("request")
    pools.follow()
    yield
    pools.leave()
    handover.current.reset(token)
    assert handover.working == {}
    assert vars(ThreadPoolExecutor)["submit"] is plain_submit


@pytest.fixture(name="pool")
def _pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def who():
    """For whom this thread is known to work."""
    return handover.working.get(threading.get_ident())


def test_submitted_work_is_the_request_s(pool):
    """
    While it runs its thread is known, and afterwards no more.
    """
    assert pool.submit(who).result() == "request"
    assert pool.submit(threads_of, "request").result() != []
    assert threads_of("request") == []


def test_mapped_work_is_the_request_s(pool):
    """
    ``map`` submits, too.
    """
    assert list(pool.map(lambda _: who(), range(3))) == ["request"] * 3


def test_nested_work_is_the_request_s(pool):
    """
    What a thread of a pool submits itself belongs to whom it works for.
    """
    with ThreadPoolExecutor(1) as other:
        assert pool.submit(lambda: other.submit(who).result()).result() == "request"


def test_to_thread_and_run_in_executor_are_the_request_s(pool):
    """
    Whichever way asyncio hands work to threads, each task's work is its own.
    """

    async def request(name):
        handover.current.set(name)
        first = await asyncio.to_thread(who)
        second = await asyncio.get_running_loop().run_in_executor(None, who)
        third = await asyncio.get_running_loop().run_in_executor(pool, who)
        child = await asyncio.create_task(asyncio.to_thread(who))
        return first, second, third, child

    async def main():
        return await asyncio.gather(request("a"), request("b"))

    assert asyncio.run(main()) == [("a",) * 4, ("b",) * 4]


def test_asgiref_s_threads_are_the_request_s():
    """
    The synchronous parts of an asynchronous request are followed, on a shared thread and on one of their own.
    """

    async def request():
        return [await sync_to_async(who, thread_sensitive=sensitive)() for sensitive in (False, True)]

    assert asyncio.run(request()) == ["request", "request"]


def test_asgiref_s_detour_through_a_loop_is_the_request_s():
    """
    An asynchronous part of a synchronous request knows whose it is; its own synchronous part runs where it came from.
    """

    async def part():
        return origin_here(), await sync_to_async(origin_here)()

    assert async_to_sync(part)() == ("request", "request")


def test_nobody_s_work_is_as_it_was(pool):
    """
    Where no request is known, what is submitted is not wrapped.
    """
    handover.current.set(None)
    seen = []
    pool.submit(lambda: seen.append(who())).result()

    assert seen == [None]


def test_one_request_s_work_is_never_another_s(pool):
    """
    A thread that has worked for one request works for the next one only, or for none.
    """
    with ThreadPoolExecutor(1) as single:
        found = []
        for name in ("a", None, "b", "a"):
            handover.current.set(name)
            found.append(single.submit(who).result())

    assert found == ["a", None, "b", "a"]


def test_work_that_outlives_its_request_stays_its_own(pool):
    """
    What goes on after the request has ended is not the next one's.
    """
    started, release = threading.Event(), threading.Event()

    def work():
        started.set()
        release.wait(PATIENCE)
        return who()

    future = pool.submit(work)
    assert started.wait(PATIENCE)
    handover.current.set("next")
    assert threads_of("next") == []
    assert len(threads_of("request")) == 1
    release.set()

    assert future.result() == "request"


def test_futures_are_as_before(pool):
    """
    Results, exceptions, callbacks and cancelling work as without us, and so do wrong calls.
    """

    def fail():
        raise KeyError("its own")

    called = threading.Event()
    future = pool.submit(pow, 2, 5)
    future.add_done_callback(lambda _: called.set())
    assert future.result() == 32
    assert called.wait(PATIENCE)
    with pytest.raises(KeyError, match="its own"):
        pool.submit(fail).result()
    assert pool.submit(dict, one=1).result() == {"one": 1}
    with pytest.raises(TypeError):
        pool.submit()
    with pytest.raises(TypeError):
        pool.submit(fn=pow)
    gate = threading.Event()
    with ThreadPoolExecutor(1) as single:
        single.submit(gate.wait, PATIENCE)
        waiting = single.submit(pow, 2, 2)
        assert waiting.cancel()
        gate.set()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(RuntimeError):
        single.submit(pow, 2, 2)


def test_submit_looks_as_before():
    """
    Its signature, name, documentation and place are the original's, and it can be pickled by that.
    """
    submit = ThreadPoolExecutor.submit

    assert inspect.signature(submit) == inspect.signature(plain_submit)
    assert (submit.__name__, submit.__qualname__) == ("submit", "ThreadPoolExecutor.submit")
    assert (submit.__doc__, submit.__module__) == (plain_submit.__doc__, plain_submit.__module__)
    assert inspect.unwrap(submit) is plain_submit
    assert SamePool is ThreadPoolExecutor
    assert pickle.loads(pickle.dumps(ThreadPoolExecutor)) is ThreadPoolExecutor


def test_subclasses_are_followed():
    """
    A pool that adds something to ``submit`` is followed by way of its superclass, once.
    """

    class Pool(ThreadPoolExecutor):
        def submit(self, function, /, *args, **kwargs):
            return super().submit(function, *args, **kwargs)

    with Pool(1) as pool:
        assert pool.submit(who).result() == "request"


def test_following_twice_is_following_once(pool):
    """
    ``follow`` and ``leave`` may each be called again.
    """
    pools.follow()
    wrapped = vars(ThreadPoolExecutor)["submit"]
    assert wrapped.__wrapped__ is plain_submit
    pools.leave()
    pools.leave()
    assert vars(ThreadPoolExecutor)["submit"] is plain_submit
    assert pool.submit(who).result() is None
    pools.follow()
    assert pool.submit(who).result() == "request"


def test_somebody_else_s_wrapping_is_kept(pool):
    """
    Where somebody has wrapped ours, theirs stays as we leave, and ours does nothing any more.
    """
    ours = vars(ThreadPoolExecutor)["submit"]
    calls = []

    def theirs(self, *args, **kwargs):
        calls.append(1)
        return ours.__get__(self, type(self))(*args, **kwargs)

    ThreadPoolExecutor.submit = theirs
    try:
        assert pool.submit(who).result() == "request"
        pools.leave()
        assert vars(ThreadPoolExecutor)["submit"] is theirs
        assert pool.submit(who).result() is None
        assert len(calls) == 2
    finally:
        ThreadPoolExecutor.submit = ours
        pools.leave()
