"""In a task: the task is cancelled, and the cancellation becomes the limit's exception at the block's end."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import asyncio
import contextlib
import sys
import time

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, in_thread, spin

from otel_introspect import DeadlineExceeded, timeout

counts_cancellations = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="before 3.11 a task does not count who has cancelled it"
)


async def in_with(limit, work):
    with limit:
        return await work()


async def in_async_with(limit, work):
    async with limit:
        return await work()


async def decorated(limit, work):
    return await limit(work)()


every_way = pytest.mark.parametrize("within", [in_with, in_async_with, decorated], ids=lambda each: each.__name__)


async def forever():
    await asyncio.sleep(FOREVER)


def cancellations():
    """How many cancellations of this task have not been taken back."""
    return asyncio.current_task().cancelling() if sys.version_info >= (3, 11) else 0


@every_way
def test_a_task_is_interrupted_where_it_waits(within):
    """
    A block whose task waits for too long raises the limit's exception, and the task goes on as if nothing had been.
    """

    async def main():
        with pytest.raises(Expired):
            await within(timeout(LIMIT, Expired), forever)
        await asyncio.sleep(2 * LIMIT)
        return cancellations()

    assert asyncio.run(main()) == 0


@every_way
def test_a_task_in_time_is_left_alone(within):
    """
    A block that ends in time gives what its work gives, and nothing comes after it.
    """

    async def work():
        await asyncio.sleep(0)
        return "in time"

    async def main():
        result = await within(timeout(LIMIT, Expired), work)
        await asyncio.sleep(3 * LIMIT)
        return result

    assert asyncio.run(main()) == "in time"


@every_way
def test_within_the_block_it_is_a_cancellation(within):
    """
    The work sees ``CancelledError``, may clean up with awaits of its own, and lets it pass.
    """
    seen = []

    async def work():
        try:
            await forever()
        except BaseException as error:
            seen.append(type(error))
            await asyncio.sleep(0.01)
            seen.append("cleaned up")
            raise

    async def main():
        with pytest.raises(Expired):
            await within(timeout(LIMIT, Expired), work)

    asyncio.run(main())

    assert seen == [asyncio.CancelledError, "cleaned up"]


@every_way
def test_what_the_work_raises_while_it_is_cancelled_is_its_own(within):
    """
    An exception that the work raises itself passes, and leaves no cancellation behind.
    """

    async def work():
        try:
            await forever()
        except asyncio.CancelledError:
            raise KeyError("its own") from None

    async def main():
        with pytest.raises(KeyError, match="its own"):
            await within(timeout(LIMIT, Expired), work)
        await asyncio.sleep(2 * LIMIT)
        return cancellations()

    assert asyncio.run(main()) == 0


@every_way
def test_a_cancellation_from_outside_stays_one(within):
    """
    Who cancels the task gets ``CancelledError``, with the message, whatever limit is open.
    """

    seen = []

    async def work():
        try:
            await within(timeout(FOREVER, Expired), forever)
        except BaseException as error:
            seen.append((type(error), error.args))
            raise

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(LIMIT)
        task.cancel("from outside")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(main())
    assert seen == [(asyncio.CancelledError, ("from outside",))]


@counts_cancellations
@every_way
def test_a_cancellation_from_outside_beside_the_limit_s_own_wins(within):
    """
    A task that is cancelled from outside while it cleans up after the limit is cancelled.
    """

    async def work():
        try:
            await forever()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(4 * LIMIT)

    async def main():
        task = asyncio.create_task(within(timeout(LIMIT, Expired), work))
        await asyncio.sleep(3 * LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


@counts_cancellations
def test_asyncio_s_own_timeout_around_ours():
    """
    A caller's ``asyncio.timeout`` that comes first is told by its own exception, not by ours.
    """

    async def main():
        limit = timeout(FOREVER, Expired)
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(LIMIT) as caller_s:
                async with limit:
                    await forever()
        return type(raised.value), caller_s.expired(), limit.expired, cancellations()

    assert asyncio.run(main()) == (TimeoutError, True, False, 0)


@counts_cancellations
def test_ours_inside_asyncio_s_own_timeout():
    """
    A limit that comes first passes through a caller's ``asyncio.timeout``, which has not expired and then still may.
    """

    async def main():
        async with asyncio.timeout(FOREVER) as caller_s:
            with pytest.raises(DeadlineExceeded):
                async with timeout(LIMIT):
                    await forever()
            caller_s.reschedule(asyncio.get_running_loop().time() + LIMIT)
            with pytest.raises(asyncio.CancelledError):
                await forever()
            raise asyncio.CancelledError

    with pytest.raises(TimeoutError) as raised:
        asyncio.run(main())
    assert type(raised.value) is TimeoutError


@counts_cancellations
def test_asyncio_s_own_timeout_inside_of_ours():
    """
    The work's own ``asyncio.timeout`` works inside a limit, and the limit after it.
    """

    async def work():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LIMIT):
                await forever()
        await forever()

    async def main():
        with pytest.raises(Expired):
            await in_async_with(timeout(3 * LIMIT, Expired), work)
        return cancellations()

    assert asyncio.run(main()) == 0


@every_way
def test_wait_for_around_and_inside(within):
    """
    ``asyncio.wait_for`` keeps its meaning on both sides of a limit.
    """

    async def work():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(forever(), LIMIT)
        await forever()

    async def main():
        with pytest.raises(Expired):
            await asyncio.wait_for(within(timeout(3 * LIMIT, Expired), work), FOREVER)
        with pytest.raises(asyncio.TimeoutError) as raised:
            await asyncio.wait_for(within(timeout(FOREVER, Expired), forever), LIMIT)
        return type(raised.value)

    assert asyncio.run(main()) is asyncio.TimeoutError


@every_way
def test_nested_limits_in_a_task(within):
    """
    Limits nest in a task as they do elsewhere.
    """

    async def inner_first():
        with pytest.raises(Inner):
            await within(timeout(LIMIT, Inner), forever)
        await forever()

    async def inner_done():
        await within(timeout(LIMIT, Inner), lambda: asyncio.sleep(0))
        await forever()

    async def inner_longer():
        await within(timeout(FOREVER, Inner), forever)

    async def both_due():
        await within(timeout(LIMIT, Inner), forever)

    async def main():
        for seconds, work in [(3, inner_first), (3, inner_done), (1, inner_longer), (1, both_due)]:
            with pytest.raises(Outer):
                await within(timeout(seconds * LIMIT, Outer), work)
            assert cancellations() == 0
        await asyncio.sleep(2 * LIMIT)

    asyncio.run(main())


def test_both_expired_while_the_loop_was_blocked():
    """
    If two limits of a task are overdue when its loop comes round again, the outermost wins.
    """

    async def main():
        with pytest.raises(Outer):
            async with timeout(2 * LIMIT, Outer), timeout(LIMIT, Inner):
                spin(4 * LIMIT)
                await forever()
        await asyncio.sleep(LIMIT)
        return cancellations()

    assert asyncio.run(main()) == 0


def test_no_other_task_is_hit():
    """
    Tasks beside the limited one are not disturbed, not even one that is busy when the limit is up.
    """

    async def limited():
        with pytest.raises(Expired):
            await in_async_with(timeout(LIMIT, Expired), forever)
        return "limited"

    async def busy():
        for _ in range(40):
            spin(0.005)
            await asyncio.sleep(0)
        return "busy"

    async def waiting():
        await asyncio.sleep(3 * LIMIT)
        return "waiting"

    async def main():
        return await asyncio.gather(limited(), busy(), waiting(), busy())

    assert asyncio.run(main()) == ["limited", "busy", "waiting", "busy"]


def test_500_rounds_of_two_tasks_that_take_turns():
    """
    Of two tasks that take turns all the time, the limited one is interrupted in each round and the other never.
    """

    async def limited():
        try:
            async with timeout(0.001, Expired):
                while True:
                    sum(range(500))
                    await asyncio.sleep(0)
        except Expired:
            return True

    async def unlimited(beside):
        turns = 0
        while not beside.done():
            sum(range(500))
            await asyncio.sleep(0)
            turns += 1
        return turns

    async def main():
        hit = 0
        for _ in range(500):
            first = asyncio.create_task(limited())
            second = asyncio.create_task(unlimited(first))
            results = await asyncio.gather(first, second)
            hit += results[0] is True
        return hit

    assert asyncio.run(main()) == 500


def test_a_blocked_loop_is_interrupted_at_the_next_await():
    """
    A task that blocks its loop past the deadline is not cut there, but where it next awaits.
    """
    blocked = []

    async def work():
        time.sleep(4 * LIMIT)
        blocked.append("to its end")
        await forever()

    async def main():
        with pytest.raises(Expired):
            await in_async_with(timeout(LIMIT, Expired), work)

    asyncio.run(main())

    assert blocked == ["to its end"]


def test_a_block_that_never_awaits_leaves_no_cancellation():
    """
    A block that blocks its loop past the deadline and ends disturbs nothing that its task does afterwards.
    """

    async def main():
        for within in (in_with, in_async_with):

            async def work():
                time.sleep(3 * LIMIT)

            with contextlib.suppress(Expired):
                await within(timeout(LIMIT, Expired), work)
            for _ in range(3):
                await asyncio.sleep(LIMIT)
        return cancellations()

    assert asyncio.run(main()) == 0


def test_a_cancellation_that_is_swallowed_comes_again():
    """
    Work that swallows the cancellation and carries on is cancelled again half a second later.
    """
    swallowed = []

    async def work():
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                swallowed.append(True)
                if len(swallowed) == 2:
                    raise

    async def main():
        with pytest.raises(Expired):
            await in_async_with(timeout(LIMIT, Expired), work)
        await asyncio.sleep(0.7)
        return cancellations()

    assert asyncio.run(main()) == 0
    assert len(swallowed) == 2


def test_a_cancellation_that_is_swallowed_at_the_end_is_over():
    """
    Work that swallows the cancellation and ends leaves nothing behind for its task.
    """

    async def work():
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        return "swallowed"

    async def main():
        with contextlib.suppress(Expired):
            assert await in_async_with(timeout(LIMIT, Expired), work) == "swallowed"
        await asyncio.sleep(0.7)
        return cancellations()

    assert asyncio.run(main()) == 0


def test_child_tasks_are_cancelled_with_what_waits_for_them():
    """
    A limit around ``gather`` ends all that it gathers.
    """
    ended = []

    async def child(number):
        try:
            await forever()
        finally:
            ended.append(number)

    async def main():
        with pytest.raises(Expired):
            async with timeout(LIMIT, Expired):
                await asyncio.gather(*(child(number) for number in range(3)))
        await asyncio.sleep(0)

    asyncio.run(main())

    assert sorted(ended) == [0, 1, 2]


@counts_cancellations
def test_a_task_group_inside_of_a_limit():
    """
    A limit around a task group ends the group as a cancellation would, and raises its own exception alone.
    """

    async def main():
        async with timeout(LIMIT, Expired), asyncio.TaskGroup() as group:
            group.create_task(forever())
            group.create_task(forever())

    with pytest.raises(Expired):
        asyncio.run(main())


@counts_cancellations
def test_a_limit_inside_of_a_task_group():
    """
    A task of a group whose limit fires fails by the limit's exception, as by any other.
    """

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(in_async_with(timeout(LIMIT, Expired), forever))
            group.create_task(forever())

    with pytest.raises(BaseException) as raised:  # noqa: PT011 - ExceptionGroup is no name before 3.11
        asyncio.run(main())
    assert [type(each) for each in raised.value.exceptions] == [Expired]


@every_way
def test_a_loop_in_a_thread(within):
    """
    A task is limited on whatever thread its loop runs.
    """

    async def main():
        with pytest.raises(Expired):
            await within(timeout(LIMIT, Expired), forever)
        await asyncio.sleep(2 * LIMIT)
        return "survived"

    assert in_thread(lambda: asyncio.run(main())) == "survived"


def test_one_loop_after_the_other():
    """
    Limits work in each of several loops, one after the other, and between them without one.
    """

    async def main():
        with pytest.raises(Expired):
            await in_async_with(timeout(LIMIT, Expired), forever)

    for _ in range(3):
        asyncio.run(main())
        with pytest.raises(Inner), timeout(LIMIT, Inner):
            time.sleep(FOREVER)


def test_a_function_that_a_task_hands_to_a_thread():
    """
    A limit within ``to_thread`` is the thread's, and the task gets its exception.
    """

    def work():
        with timeout(LIMIT, Expired):
            spin(FOREVER)

    async def main():
        with pytest.raises(Expired):
            await asyncio.to_thread(work)
        await asyncio.sleep(2 * LIMIT)

    asyncio.run(main())


def test_a_limit_that_is_cancelled_or_none_in_a_task():
    """
    ``cancel()``, ``remaining()``, ``expired`` and no limit mean the same in a task.
    """

    async def main():
        async with timeout(LIMIT, Expired) as limit:
            assert 0 < limit.remaining() <= LIMIT
            limit.cancel()
            await asyncio.sleep(3 * LIMIT)
        assert limit.expired is False
        async with timeout(None, Expired) as limit:
            assert limit.remaining() is None
            await asyncio.sleep(0)
        limit = timeout(LIMIT, Expired)
        with pytest.raises(Expired):
            await in_async_with(limit, forever)
        assert limit.expired is True

    asyncio.run(main())


def test_an_async_with_that_is_left_by_an_exception():
    """
    What an ``async with`` block raises itself passes, and nothing comes after it.
    """

    async def main():
        with pytest.raises(KeyError):
            async with timeout(LIMIT, Expired):
                await asyncio.sleep(0)
                raise KeyError
        await asyncio.sleep(3 * LIMIT)

    asyncio.run(main())


def test_a_thousand_tasks_with_a_limit_each():
    """
    Each of a thousand tasks is held to its own limit.
    """

    async def work(number):
        try:
            async with timeout(LIMIT if number % 2 else FOREVER, Expired(number)):
                await asyncio.sleep(FOREVER if number % 2 else 4 * LIMIT)
        except Expired as error:
            return error.args == (number,)
        return not number % 2

    async def main():
        started = time.monotonic()
        results = await asyncio.gather(*(work(number) for number in range(1000)))
        assert time.monotonic() - started < PATIENCE
        return results

    assert all(asyncio.run(main()))


def test_blocks_that_end_about_when_they_are_due():
    """
    A limit that is up just as its block ends either fires in the block or not at all.
    """

    async def block(number):
        try:
            async with timeout(0.002, Expired(number)):
                await asyncio.sleep(0.001 + number % 20 * 0.0001)
        except Expired as error:
            return error.args == (number,)
        return None

    async def main():
        fired = []
        for number in range(600):
            fired.append(await block(number))
            for _ in range(3):
                await asyncio.sleep(0)
            assert cancellations() == 0
        return fired

    fired = asyncio.run(main())

    assert False not in fired
    assert {True, None} == set(fired)
