"""Functions, generators, coroutine functions and asynchronous generators that are limited as a whole."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import asyncio
import inspect
import time

import pytest
from interruptions import FOREVER, LIMIT, Expired, Inner, in_thread, spin

from otel_introspect import timeout


def function(pause=0.0):
    """Say nothing."""
    time.sleep(pause)


def generator(pause=0.0):
    """Say nothing."""
    yield pause


async def coroutine(pause=0.0):
    """Say nothing."""
    await asyncio.sleep(pause)


async def asynchronous_generator(pause=0.0):
    """Say nothing."""
    yield pause


KINDS = [function, generator, coroutine, asynchronous_generator]
QUESTIONS = [inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction]


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.__name__)
def test_what_is_decorated_looks_the_same(kind):
    """
    Name, documentation, signature and kind are those of the function that was decorated.
    """
    limited = timeout(FOREVER)(kind)

    assert limited is not kind
    assert (limited.__name__, limited.__doc__, limited.__module__) == (kind.__name__, kind.__doc__, kind.__module__)
    assert limited.__wrapped__ is kind
    assert inspect.signature(limited) == inspect.signature(kind)
    assert [question(limited) for question in QUESTIONS] == [question(kind) for question in QUESTIONS]


def test_methods():
    """
    A decorated method has its ``self``.
    """

    class Shop:
        @timeout(LIMIT, Expired)
        def slow(self):
            return self.sleep()

        def sleep(self):
            time.sleep(FOREVER)

    with pytest.raises(Expired):
        Shop().slow()


def test_what_the_function_raises_passes():
    """
    An exception of the function's own is its own.
    """

    @timeout(FOREVER, Expired)
    def fail():
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        fail()


def test_a_generator_that_takes_too_long_is_interrupted():
    """
    A decorated generator is limited while it runs, and may clean up.
    """
    cleaned = []

    @timeout(LIMIT, Expired)
    def numbers():
        try:
            yield 1
            time.sleep(FOREVER)
            yield 2
        finally:
            cleaned.append(True)

    taken = []
    with pytest.raises(Expired):
        taken.extend(iter(numbers()))
    running = numbers()
    assert next(running) == 1
    with pytest.raises(Expired):
        next(running)

    assert cleaned == [True, True]


def test_a_generator_s_runs_add_up():
    """
    The time of all its runs counts together, not each for itself.
    """

    @timeout(4 * LIMIT, Expired)
    def numbers():
        for number in range(100):
            time.sleep(LIMIT)
            yield number

    taken = []
    with pytest.raises(Expired):
        for number in numbers():
            taken.append(number)  # noqa: PERF402 - what came before the exception is what is looked at

    assert taken == list(range(len(taken)))
    assert 1 <= len(taken) <= 4


def test_the_consumer_of_a_suspended_generator_is_never_hit():
    """
    What its consumer does between two values takes none of a generator's time.
    """

    @timeout(LIMIT, Expired)
    def numbers():
        yield from range(4)

    taken = []
    for number in numbers():
        taken.append(number)
        time.sleep(2 * LIMIT)

    assert taken == [0, 1, 2, 3]


def test_a_consumer_may_throw_a_generator_away():
    """
    A generator that is closed, or forgotten, before its end fires no more.
    """

    @timeout(LIMIT, Expired)
    def numbers():
        yield from range(4)

    closed, forgotten = numbers(), numbers()
    next(closed)
    next(forgotten)
    closed.close()
    del forgotten
    time.sleep(3 * LIMIT)

    assert list(closed) == []


def test_a_block_in_a_suspended_generator_does_not_hit_the_consumer():
    """
    The deadline of a block that is open in a suspended generator does not fire in whoever runs meanwhile.
    """

    def numbers():
        with timeout(LIMIT, Expired):
            yield 1

    suspended = numbers()
    next(suspended)
    time.sleep(3 * LIMIT)
    spin(LIMIT)
    with pytest.raises(Inner), timeout(LIMIT, Inner):
        time.sleep(FOREVER)
    suspended.close()
    time.sleep(LIMIT)


def test_a_consumer_s_own_limit_holds_while_a_generator_is_suspended():
    """
    Limits of suspended generators and of their consumer do not get into each other's way.
    """

    @timeout(FOREVER, Inner)
    def numbers():
        yield from range(1000)

    with pytest.raises(Expired), timeout(2 * LIMIT, Expired):
        for _ in numbers():
            time.sleep(LIMIT / 2)


def test_generators_that_take_turns():
    """
    Of several generators that run in turns, the slow one is interrupted and no other.
    """

    @timeout(2 * LIMIT, Expired)
    def numbers(pause):
        for number in range(50):
            time.sleep(pause)
            yield number

    quick, slow = numbers(0), numbers(LIMIT)
    taken = []
    with pytest.raises(Expired):
        while True:
            taken.append(next(quick))
            next(slow)
    taken.extend(quick)

    assert taken == list(range(50))


def test_send_throw_and_return_reach_the_generator():
    """
    Whoever drives a decorated generator drives the generator itself.
    """

    @timeout(FOREVER, Expired)
    def echo():
        heard = []
        while True:
            try:
                word = yield len(heard)
            except KeyError:
                heard.append("thrown")
                continue
            if word is None:
                return heard
            heard.append(word)

    def drive():
        generator = echo()
        steps = [next(generator), generator.send("sent"), generator.throw(KeyError())]
        try:
            next(generator)
        except StopIteration as stop:
            steps.append(stop.value)
        return steps

    def delegate():
        return (yield from echo())

    delegating = delegate()
    next(delegating)
    delegating.send("through")
    with pytest.raises(StopIteration) as stop:
        delegating.send(None)

    assert drive() == [0, 1, 2, ["sent", "thrown"]]
    assert stop.value.value == ["through"]


def test_an_exception_thrown_into_a_generator_comes_out_of_it():
    """
    What its consumer throws in and it does not catch comes back; closing it runs its ``finally``.
    """
    cleaned = []

    @timeout(FOREVER, Expired)
    def numbers():
        try:
            yield 1
        finally:
            cleaned.append(True)

    thrown, closed = numbers(), numbers()
    next(thrown)
    with pytest.raises(KeyError):
        thrown.throw(KeyError())
    next(closed)
    closed.close()

    assert cleaned == [True, True]


def test_a_coroutine_function_is_limited_while_it_runs():
    """
    A decorated ``async def`` is interrupted in its awaits; calling it alone starts nothing.
    """

    @timeout(LIMIT, Expired)
    async def slow(pause):
        await asyncio.sleep(pause)
        return "done"

    async def main():
        assert await slow(0) == "done"
        waiting = slow(0)
        await asyncio.sleep(3 * LIMIT)
        assert await waiting == "done"
        with pytest.raises(Expired):
            await slow(FOREVER)
        await asyncio.sleep(2 * LIMIT)

    asyncio.run(main())


def test_many_calls_of_one_coroutine_function_at_once():
    """
    Calls that run at the same time have a limit each.
    """

    @timeout(6 * LIMIT, Expired)
    async def work(number):
        await asyncio.sleep(FOREVER if number % 3 == 0 else LIMIT)
        return number

    async def main():
        return await asyncio.gather(*(work(number) for number in range(12)), return_exceptions=True)

    results = asyncio.run(main())

    assert [Expired if isinstance(each, Expired) else each for each in results] == [
        Expired if number % 3 == 0 else number for number in range(12)
    ]


def test_an_asynchronous_generator_that_takes_too_long_is_interrupted():
    """
    A decorated asynchronous generator is interrupted in its awaits, and may clean up.
    """
    cleaned = []

    @timeout(LIMIT, Expired)
    async def numbers():
        try:
            yield 1
            await asyncio.sleep(FOREVER)
            yield 2
        finally:
            cleaned.append(True)

    async def main():
        taken = []
        with pytest.raises(Expired):
            async for number in numbers():
                taken.append(number)  # noqa: PERF401 - what came before the exception is what is looked at
        return taken

    assert asyncio.run(main()) == [1]
    assert cleaned == [True]


def test_the_consumer_of_a_suspended_asynchronous_generator_is_never_hit():
    """
    What its consumer awaits between two values takes none of an asynchronous generator's time.
    """

    @timeout(LIMIT, Expired)
    async def numbers():
        for number in range(4):
            await asyncio.sleep(0)
            yield number

    async def main():
        taken = []
        async for number in numbers():
            taken.append(number)
            await asyncio.sleep(2 * LIMIT)
        return taken

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_asend_athrow_and_aclose_reach_the_asynchronous_generator():
    """
    Whoever drives a decorated asynchronous generator drives the generator itself.
    """
    cleaned = []

    @timeout(FOREVER, Expired)
    async def echo():
        word = None
        try:
            while True:
                try:
                    word = yield word
                except KeyError:
                    word = "thrown"
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main():
        generator = echo()
        steps = [await generator.asend(None), await generator.asend("sent"), await generator.athrow(KeyError())]
        await generator.aclose()
        return steps

    assert asyncio.run(main()) == [None, "sent", "thrown"]
    assert cleaned == [True]


def test_a_generator_in_a_thread():
    """
    A decorated generator is limited in other threads too, and need not stay in one.
    """

    @timeout(4 * LIMIT, Expired)
    def numbers():
        yield 1
        yield 2
        spin(FOREVER)

    running = numbers()

    assert next(running) == 1
    assert in_thread(lambda: next(running)) == 2
    with pytest.raises(Expired):
        in_thread(lambda: next(running))
