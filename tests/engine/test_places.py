"""Where a span's code runs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

from otel_introspect.engine.places import Handoff, TaskPlace, ThreadPlace, await_chain, here, is_current, look
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


def test_a_stack_that_has_lost_its_outer_end_is_not_shown():
    """
    A thread that has left a generator since its innermost frame was looked up is not shown as that generator alone.
    """
    generator = (each for each in range(3))
    next(generator)

    assert look(ThreadPlace(1), {1: generator.gi_frame}) is None


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


def seen_while_a_child_runs(outer):
    """What is seen of *outer*, given what its child is to do, while that keeps the loop busy."""
    seen = []

    async def main():
        place = None

        async def child_at_work():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(look_from_another_thread(place))

        async def unrelated():
            for _ in range(10):
                await asyncio.sleep(0)

        task = asyncio.ensure_future(outer(child_at_work))
        place = TaskPlace(task, threading.get_ident())
        others = [asyncio.ensure_future(unrelated()) for _ in range(3)]
        await asyncio.gather(task, *others)

    asyncio.run(main())
    return seen


async def _with_create_task(child):
    await asyncio.create_task(child())


async def _with_gather(child):
    await asyncio.gather(asyncio.sleep(0.05), child(), asyncio.sleep(0.05))


async def _with_nested_gather(child):
    async def level(*works):
        await asyncio.gather(*works)

    await asyncio.gather(level(asyncio.sleep(0.05)), level(asyncio.sleep(0.05), level(asyncio.sleep(0.05), child())))


async def _with_wait(child):
    await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.05)), asyncio.ensure_future(child())])


async def _with_wait_for(child):
    await asyncio.wait_for(asyncio.ensure_future(child()), 10)


async def _with_shield(child):
    await asyncio.shield(asyncio.ensure_future(child()))


async def _with_group(child):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.05))
        group.create_task(child())


async def _with_nested_groups(child):
    async def inner():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.05))
        group.create_task(inner())


@pytest.mark.parametrize(
    "outer",
    [
        _with_create_task,
        _with_gather,
        _with_nested_gather,
        _with_wait,
        _with_wait_for,
        _with_shield,
        *([_with_group, _with_nested_groups] if sys.version_info >= (3, 11) else []),
    ],
)
def test_a_child_that_runs_is_seen_below_who_waits_for_it(outer):
    """
    A task that waits for tasks of its own is where that of them is which runs, however many levels down.
    """
    (sighting,) = seen_while_a_child_runs(outer)

    shown = names(sighting)
    assert sighting.task_state == "running"
    assert "child_at_work" in shown
    assert shown[-1] == outer.__name__
    assert "unrelated" not in shown
    assert "main" not in shown


def test_a_task_that_nobody_waits_for_is_not_seen():
    """
    What a task has begun and does not wait for is not where it is.
    """

    async def outer(child):
        background = asyncio.ensure_future(child())
        await asyncio.sleep(0.05)
        await background

    (sighting,) = seen_while_a_child_runs(outer)

    assert sighting.task_state == "awaiting"
    assert "child_at_work" not in names(sighting)
    assert "unrelated" not in names(sighting)


def test_what_a_group_waits_for_is_seen_while_nobody_runs():
    """
    A task that waits for a group is stuck where the group's first task that is not done is.
    """
    if sys.version_info < (3, 11):
        pytest.skip("there are no groups before 3.11")

    async def outer():
        async with asyncio.TaskGroup() as group:
            group.create_task(_forever())

    shown = parked(outer)
    assert "_forever" in shown
    assert shown[-1] == "outer"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are begun eagerly from 3.12 on")
def test_a_child_that_was_begun_eagerly_is_seen():
    """
    A task that runs on top of the one that has begun it is seen there.
    """
    seen = []

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

        async def child():
            seen.append(look_from_another_thread(place))

        async def request():
            await asyncio.create_task(child())

        async def begin():
            nonlocal place
            place = TaskPlace(asyncio.current_task(), threading.get_ident())
            await request()

        place = None
        await asyncio.create_task(begin())

    asyncio.run(main())
    (sighting,) = seen

    assert sighting.task_state == "running"
    assert [each for each in names(sighting) if each in ("child", "request", "begin", "main")] == [
        "child",
        "request",
        "begin",
    ]


def test_looking_for_the_child_that_runs_is_bounded():
    """
    Of thousands of children some are looked at, and tasks that wait for each other end it.
    """

    async def main():
        children = [asyncio.ensure_future(_forever()) for _ in range(3_000)]

        async def outer():
            await asyncio.gather(*children)

        task = asyncio.ensure_future(outer())
        await settled()
        place = TaskPlace(task, threading.get_ident())
        started = time.monotonic()
        sighting = look_from_another_thread(place)
        took = time.monotonic() - started
        for each in (task, *children):
            each.cancel()
        await asyncio.gather(task, *children, return_exceptions=True)
        return sighting, took

    sighting, took = asyncio.run(main())

    assert names(sighting)[-1] == "outer"
    assert took < 2


def test_where_the_caller_runs():
    """
    In a task that is its place, elsewhere its thread.
    """

    async def main():
        task = asyncio.current_task()
        return here().is_of(task), here().thread_id

    assert asyncio.run(main()) == (True, threading.get_ident())
    assert here() == threading.get_ident()
