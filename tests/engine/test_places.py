"""Where a span's code runs."""

from __future__ import annotations

import asyncio
import threading

from otel_introspect.engine.places import Handoff, TaskPlace, ThreadPlace, await_chain, is_current, look
from otel_introspect.engine.stacks import current_frames


def names(sighting) -> list[str]:
    return [code.co_name for code, _ in sighting.capture.positions]


async def settled(*tasks: asyncio.Task) -> None:
    """Let tasks run until they are parked."""
    for _ in range(10):
        await asyncio.sleep(0)


def look_from_another_thread(place):
    """As the introspector does."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(look(place, current_frames())))
    thread.start()
    thread.join()
    return seen[0]


def test_a_thread_is_seen_where_it_is():
    """
    A thread's place shows the thread's own stack and no task's state.
    """

    def waiting_here():
        return look_from_another_thread(ThreadPlace(threading.get_ident()))

    sighting = waiting_here()

    assert "waiting_here" in names(sighting)
    assert sighting.task_state is None
    assert sighting.thread_id == threading.get_ident()


def test_a_thread_that_has_ended_is_not_seen():
    """
    There is nothing to be seen of a thread that is gone.
    """
    assert look(ThreadPlace(1), {}) is None


def parked(make_coroutine) -> list[str]:
    """The names that a look at a parked task shows, innermost first."""

    async def main():
        task = asyncio.ensure_future(make_coroutine())
        await settled()
        sighting = look_from_another_thread(TaskPlace(task, threading.get_ident()))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sighting.task_state == "awaiting"
        return names(sighting)

    return asyncio.run(main())


async def _forever():
    await asyncio.Event().wait()


def test_a_parked_task_shows_its_chain_of_awaits():
    """
    From the outermost coroutine down to the await that the task is parked on.
    """

    async def inner():
        await _forever()

    async def outer():
        await inner()

    assert parked(outer)[-3:] == ["_forever", "inner", "outer"]


def test_the_chain_goes_on_in_a_task_that_is_awaited():
    """
    A task that awaits another one is stuck where that one is.
    """

    async def outer():
        await asyncio.create_task(_forever())

    assert "_forever" in parked(outer)
    assert parked(outer)[-1] == "outer"


def test_the_chain_goes_on_in_what_gather_waits_for():
    """
    A task that waits for several is stuck where the first of them that is not done is.
    """

    async def done():
        pass

    async def outer():
        await asyncio.gather(done(), _forever())

    shown = parked(outer)
    assert "_forever" in shown
    assert shown[-1] == "outer"


def test_the_chain_passes_asynchronous_generators():
    """
    An ``async for`` over a generator that is parked shows the generator's frame.
    """

    async def rows():
        await _forever()
        yield

    async def outer():
        async for _ in rows():
            pass

    assert parked(outer)[-3:] == ["_forever", "rows", "outer"]


def test_the_chain_passes_awaitables_of_classes():
    """
    An object with an ``__await__`` of its own does not break the chain.
    """

    class Wrapper:
        def __await__(self):
            return _forever().__await__()

    class Generator:
        def __await__(self):
            yield from _forever().__await__()

    async def outer():
        await Wrapper()

    async def other():
        await Generator()

    assert parked(outer)[-2:] == ["_forever", "outer"]
    assert parked(other)[-3:] == ["_forever", "__await__", "other"]


def test_a_running_task_shows_its_thread_down_from_itself():
    """
    A task that keeps the loop busy is seen on the loop's thread, without the loop and without other tasks.
    """

    async def busy():
        place = TaskPlace(asyncio.current_task(), threading.get_ident())
        return look_from_another_thread(place)

    async def main():
        return await asyncio.ensure_future(busy())

    sighting = asyncio.run(main())

    assert sighting.task_state == "running"
    assert names(sighting)[-1] == "busy"
    assert "main" not in names(sighting)


def test_a_parked_task_never_shows_the_one_that_blocks_the_loop():
    """
    While one task blocks the loop, what is seen of another is its own chain of awaits only.
    """

    async def patient():
        await _forever()

    async def blocking(place):
        return look_from_another_thread(place)

    async def main():
        task = asyncio.ensure_future(patient())
        await settled()
        sighting = await blocking(TaskPlace(task, threading.get_ident()))
        task.cancel()
        return sighting

    assert "blocking" not in names(asyncio.run(main()))


def test_a_finished_task_is_not_seen():
    """
    There is nothing to be seen of a task that is done, nor of one that never ran on the thread named.
    """

    async def main():
        async def quick():
            pass

        task = asyncio.ensure_future(quick())
        await task
        return look_from_another_thread(TaskPlace(task, threading.get_ident()))

    assert asyncio.run(main()) is None


def test_nobody_is_current_in_a_loop_that_stands_still():
    """
    A task whose loop does not run is not taken for a running one.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(_forever())
    loop.run_until_complete(asyncio.sleep(0, result=None))

    assert not is_current(task)
    assert await_chain(task)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


def serve(work):
    """Stands for how a framework takes work on a thread: calls either a queue or the work itself."""
    run_item(work) if work is not None else threading.Event().wait(0.05)


def run_item(work):
    work()


async def handed_over():
    await _forever()


def test_work_handed_to_a_thread_is_seen_on_that_thread():
    """
    A task that waits for its own synchronous part is shown where that is; if the thread only waits, where it awaits.
    """

    async def waiting(event):
        await event.wait()

    async def main():
        event = asyncio.Event()
        task = asyncio.ensure_future(waiting(event))
        await settled()
        release, started = threading.Event(), threading.Event()

        def synchronous_part():
            started.set()
            release.wait(10)

        worker = threading.Thread(target=serve, args=(synchronous_part,))
        worker.start()
        started.wait(10)
        innermost = await_chain(task)[-1].f_code
        place = TaskPlace(task, threading.get_ident(), worker.ident, Handoff(innermost, serve.__code__))
        busy = look_from_another_thread(place)
        release.set()
        worker.join()
        idle = look_from_another_thread(place)
        event.set()
        await task
        return busy, idle, worker.ident

    busy, idle, worker_id = asyncio.run(main())

    assert names(busy).index("synchronous_part") < names(busy).index("waiting")
    assert (busy.task_state, busy.thread_id) == ("running", worker_id)
    assert idle.task_state == "awaiting"


def test_the_chain_goes_on_behind_wait_for_shield_and_wait():
    """
    Where asyncio puts a future of its own between a task and the one it waits for, the chain finds that one.
    """

    async def with_wait_for():
        await asyncio.wait_for(_forever(), 100)

    async def with_shield():
        await asyncio.shield(asyncio.ensure_future(_forever()))

    async def with_wait():
        await asyncio.wait([asyncio.ensure_future(_forever())])

    for outer in (with_wait_for, with_shield, with_wait):
        shown = parked(outer)
        assert "_forever" in shown
        assert shown[-1] == outer.__name__
