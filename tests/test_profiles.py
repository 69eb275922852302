"""``profile``: a block or a function is profiled, and the current span has the result."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import inspect
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from profiled import ID, PROFILE, TEXT, busy, idle, profiles_of, running, until

from otel_introspect import faults, introspection, profile
from otel_introspect.introspection import activate
from otel_introspect.profiles import Profile
from otel_introspect.profiling import pools


@pytest.fixture(name="make_profiled")
def _make_profiled(monkeypatch):
    monkeypatch.setattr(introspection, "_fallback", None)
    with running() as make_profiled:
        yield make_profiled


@pytest.fixture(name="profiled")
def _profiled(make_profiled):
    return make_profiled()


@pytest.fixture(name="alone")
def _alone(monkeypatch):
    """No instrumentor has been run, and there is no SDK."""
    monkeypatch.setattr(introspection, "_fallback", None)
    activate(None)

    yield

    if introspection._fallback is not None:
        introspection._fallback.stop()
    pools.leave()


def work(seconds=0.05):
    busy(seconds)


# --- The block ------------------------------------------------------------------------------------------------------


def test_the_current_span_has_the_profile(profiled):
    """
    The span that is current has one event, which says what the block did and how it was found out.
    """
    with profiled.request(), profile() as taken:
        work()

    span = profiled.span()
    (event,) = profiles_of(span)
    assert event.attributes[ID] == span.attributes[ID] == taken.id
    assert event.attributes["otel_introspect.profile.trigger"] == "code"
    assert event.attributes["otel_introspect.profile.engine"] == "sampler"
    assert event.attributes["otel_introspect.profile.interval_ms"] == 1
    assert event.attributes["otel_introspect.profile.truncated"] is False
    assert event.attributes["otel_introspect.profile.sample_count"] > 5
    assert 45 <= event.attributes["otel_introspect.profile.duration_ms"] < 5000
    assert "busy" in event.attributes[TEXT]
    assert "work" in event.attributes[TEXT]
    assert taken.refused is None
    assert not faults.counts


def test_nothing_of_ours_is_in_it(profiled):
    """
    The tree has the application's frames only, and begins where the block is.
    """
    with profiled.request(), profile() as taken:
        work()

    lines = profiled.text().splitlines()
    assert "test_nothing_of_ours_is_in_it" in lines[0]
    assert "otel_introspect/" not in profiled.text()
    assert "busy" in taken.text()


def test_the_decorator_begins_where_the_function_is_called(profiled):
    """
    Between the caller and the decorated function stands nothing of ours.
    """

    @profile
    def decorated():
        work()

    with profiled.request():
        decorated()

    assert "decorated" in profiled.text()
    assert "otel_introspect/" not in profiled.text()
    assert "profiles.py" not in profiled.text().replace("test_profiles.py", "")


def test_a_child_span_has_it_too(profiled):
    """
    It goes to the span that is current where the block begins, entry or not.
    """
    with profiled.request(), profiled.request("SELECT"), profile():
        work(0.04)

    assert len(profiles_of(profiled.span("SELECT"))) == 1
    assert profiles_of(profiled.span()) == []


def test_where_no_span_is_recording_one_is_made(profiled):
    """
    Without a span the block has one of its own, which is current in it and named as asked or after the function.
    """
    with profile(name="nightly"):
        work(0.04)
        trace.get_current_span().set_attribute("seen", value=True)
    with profile():
        work(0.04)

    assert profiled.span("nightly").attributes["seen"] is True
    assert len(profiles_of(profiled.span("nightly"))) == 1
    assert len(profiles_of(profiled.span("profile test_where_no_span_is_recording_one_is_made"))) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_span_of_a_decorated_function(profiled):
    """
    The span that is made for a function has the function's name.
    """

    class Report:
        @profile
        def build(self):
            work(0.04)

    Report().build()

    (span,) = profiled.spans()
    assert span.name.endswith("Report.build")


def test_its_own_span_ends_when_the_block_fails(profiled):
    """
    An exception passes, and the span that was made for the block is ended without being called a failure of ours.
    """

    def fail():
        with profile(name="nightly"):
            work(0.04)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    span = profiled.span("nightly")
    assert len(profiles_of(span)) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_exceptions_pass(profiled, error):
    """
    Whatever comes out of the block comes out as it was, and the profile of what was done till then is there.
    """
    raised = error("mine")

    def fail():
        with profiled.request(record_exception=False, set_status_on_exception=False), profile():
            work(0.04)
            raise raised

    with pytest.raises(error) as caught:
        fail()

    assert caught.value is raised
    assert len(profiled.profiles()) == 1
    until(profiled.is_clean)


def test_without_an_sdk_there_is_still_text(alone):
    """
    Where there is no SDK, and no instrumentor has been run, nothing fails and the text can be had.
    """
    with profile() as taken:
        work()

    assert "work" in taken.text()
    assert taken.id is not None
    assert taken.refused is None
    assert not faults.counts


def test_without_an_instrumentor_the_span_has_it(alone, tracing):
    """
    A process that has set up tracing but not us gets its profile on its span.
    """
    with tracing.tracer.start_as_current_span("GET /"), profile():
        work()

    (event,) = tracing.events(PROFILE)
    assert "work" in event.attributes[TEXT]


def test_a_span_that_is_not_sampled(profiled):
    """
    Below a span that records nothing the block has its text all the same.
    """
    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))), profile() as taken:
        work(0.06)

    assert "work" in taken.text()
    assert not faults.counts


def test_a_span_that_ends_inside_the_block(profiled, caplog):
    """
    Nothing is written to a span that has ended: the text is there, the loss is counted, the SDK has nothing to say.
    """
    with trace.use_span(profiled.tracer.start_span("early")) as span, profile() as taken:
        work(0.06)
        span.end()
        work(0.06)

    assert profiles_of(profiled.span("early")) == []
    assert "work" in taken.text()
    assert faults.counts["dropped", "profile: its span has ended before it"] == 1
    assert caplog.records == []


def test_a_renamed_span(profiled):
    """
    A span that gets another name meanwhile has its profile under that.
    """
    with profiled.request("GET") as span, profile() as taken:
        work(0.04)
        span.update_name("GET /report/<id>")

    assert len(profiles_of(profiled.span("GET /report/<id>"))) == 1
    assert taken.session().target_description.startswith("GET /report/<id> (code;")


def test_ended_on_another_thread(profiled):
    """
    The block and its span may end on different threads.
    """
    span = profiled.tracer.start_span("GET /")
    with trace.use_span(span), profile():
        work(0.04)
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()

    assert "work" in profiled.text()


def test_many_in_a_row_on_one_span(profiled):
    """
    A block in a loop: as many profiles as a span has room for, the span's own attribute is that of the last of them.
    """
    taken = []
    with profiled.request():
        for _ in range(60):
            with profile() as each:
                work(0.005)
            taken.append(each.id)

    span = profiled.span()
    found = [event.attributes[ID] for event in profiles_of(span)]
    assert 5 <= len(found) <= 60
    assert found == taken[: len(found)]
    assert span.attributes[ID] == found[-1]
    assert len(found) + faults.counts["dropped", "span budget"] == 60


def test_the_text_ends_the_profile(profiled):
    """
    Asking for the text inside the block ends the profile there; the span has it at the block's end.
    """
    with profiled.request(), profile() as taken:
        work(0.06)
        text = taken.text()
        idle(0.03)

    assert "work" in text
    assert "idle" not in profiled.text()


def test_before_it_is_entered(profiled):
    """
    What has not been entered has neither an id nor a text.
    """
    taken = profile()

    assert isinstance(taken, Profile)
    assert (taken.id, taken.text(), taken.session(), taken.refused) == (None, "", None, None)


def test_one_object_twice(profiled):
    """
    The same object in a second block takes a second profile.
    """
    taken = profile(name="twice")
    ids = []
    for _ in range(2):
        with taken:
            work(0.04)
        ids.append(taken.id)

    assert len(set(ids)) == 2
    assert [span.attributes[ID] for span in profiled.spans()] == ids
    assert not faults.counts


def test_the_interval(profiled):
    """
    The interval can be given for each block.
    """
    with profiled.request(), profile(interval_ms=20):
        work(0.1)

    (event,) = profiled.profiles()
    assert event.attributes["otel_introspect.profile.interval_ms"] == 20
    assert event.attributes["otel_introspect.profile.sample_count"] <= 12


@pytest.mark.parametrize("interval", [0, -5, 0.5, float("nan")])
def test_an_interval_that_is_none(interval):
    """
    An interval that can't be one is a mistake that the programmer is told of at once.
    """
    with pytest.raises(ValueError, match="at least 1"):
        profile(interval_ms=interval)


def test_the_configured_interval(make_profiled):
    """
    A block is sampled ten times as often as a request that nobody has asked for.
    """
    profiled = make_profiled(interval=50)
    with profiled.request(), profile():
        work(0.06)

    (event,) = profiled.profiles()
    assert event.attributes["otel_introspect.profile.interval_ms"] == 5


# --- One at a time --------------------------------------------------------------------------------------------------


def test_an_inner_block_is_refused(profiled):
    """
    Of two blocks, one in the other, the outer one is profiled; the inner one runs, and says why it is not.
    """
    with profiled.request(), profile() as outer, profile() as inner:
        work(0.06)

    assert inner.refused == "busy"
    assert (inner.id, inner.text()) == (None, "")
    assert outer.refused is None
    assert [event.attributes[ID] for event in profiled.profiles()] == [outer.id]
    assert faults.counts == {("refused", "profile: busy"): 1}


def test_after_a_refusal_there_is_room_again(profiled):
    """
    A block that was refused gives back nothing that is not its own; after the outer one there is room.
    """
    with profile(name="one"), profile():
        pass
    with profile(name="two") as later:
        work(0.04)

    assert later.refused is None


def test_another_thread_is_refused(profiled):
    """
    One block at a time in a process, whichever thread asks.
    """
    found = []

    def other():
        with profile() as taken:
            found.append(taken.refused)

    with profile():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert found == ["busy"]


def test_recursion(profiled):
    """
    Of a function that calls itself only the outermost call is profiled, and the calls within are seen in it.
    """

    @profile
    def down(n):
        work(0.01)
        return down(n - 1) if n else "bottom"

    with profiled.request():
        assert down(3) == "bottom"

    assert len(profiled.profiles()) == 1
    assert faults.counts["refused", "profile: busy"] == 3


def test_a_block_that_is_left_open(make_profiled):
    """
    A generator that nobody reads on does not keep the place for ever: after the longest duration another may begin.
    """
    profiled = make_profiled(max_duration=50)

    @profile
    def items():
        yield 1

    left = items()
    next(left)
    with profile() as refused:
        pass
    until(lambda: all(live.stopped for live in profiled.profiler._live.values()))
    with profile() as taken:
        work(0.04)

    assert (refused.refused, taken.refused) == ("busy", None)
    left.close()


def test_the_longest_duration(make_profiled):
    """
    A profile stops where it may not go on; the rest of the block runs, and the event says that there is more.
    """
    profiled = make_profiled(max_duration=60)
    with profiled.request(), profile():
        busy(0.15)
        idle(0.15)

    (event,) = profiled.profiles()
    assert event.attributes["otel_introspect.profile.truncated"] is True
    assert 55 <= event.attributes["otel_introspect.profile.duration_ms"] < 290
    assert "busy" in event.attributes[TEXT]
    assert "idle" not in event.attributes[TEXT]
    until(profiled.is_clean)


# --- The decorator --------------------------------------------------------------------------------------------------


def both(test):
    """As ``@profile`` and as ``@profile(...)``."""
    return pytest.mark.parametrize("decorate", [profile, profile(interval_ms=2), profile()], ids=["bare", "set", "()"])(
        test
    )


@both
def test_a_function_is_what_it_was(profiled, decorate):
    """
    Name, docstring, signature, arguments, result and exceptions are those of the function.
    """

    def function(a: int, *more: int, b: str = "x", **others: object) -> tuple:
        """What it does."""
        if b == "fail":
            raise LookupError(a)
        return a, more, b, others

    function.mark = "kept"
    decorated = decorate(function)

    assert decorated.__wrapped__ is function
    assert (decorated.__name__, decorated.__qualname__) == (function.__name__, function.__qualname__)
    assert (decorated.__doc__, decorated.__module__) == (function.__doc__, function.__module__)
    assert decorated.mark == "kept"
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated(1, 2, b="y", c=3) == function(1, 2, b="y", c=3)
    with pytest.raises(LookupError, match="7"):
        decorated(7, b="fail")
    with pytest.raises(TypeError, match="missing 1 required"):
        decorated()
    assert not faults.counts


@both
def test_a_coroutine_function_stays_one(profiled, decorate):
    """
    A coroutine function is one afterwards; the profile covers its awaits.
    """

    @decorate
    async def fetch(n):
        """What it does."""
        work(0.04)
        await asyncio.sleep(0.02)
        return n

    assert inspect.iscoroutinefunction(fetch)
    assert fetch.__doc__ == "What it does."
    with profiled.request():
        assert asyncio.run(fetch(5)) == 5
    assert "fetch" in profiled.text()
    assert "work" in profiled.text()


@both
def test_a_generator_function_stays_one(profiled, decorate):
    """
    Items, what is sent and thrown in, the value returned: all is as without, and the whole of it is one profile.
    """
    events = []

    @decorate
    def items():
        try:
            work(0.01)
            got = yield 1
            events.append(got)
            try:
                yield 2
            except KeyError:
                events.append("thrown")
            yield 3
            return "returned"
        finally:
            events.append("closed")

    assert inspect.isgeneratorfunction(items)
    with profiled.request():
        generator = items()
        assert next(generator) == 1
        assert generator.send("sent") == 2
        assert generator.throw(KeyError) == 3
        with pytest.raises(StopIteration, match="returned"):
            next(generator)
    assert events == ["sent", "thrown", "closed"]
    assert len(profiled.profiles()) == 1


def test_a_generator_that_is_closed_early(profiled):
    """
    Closing a generator closes the one within and ends its profile.
    """
    events = []

    @profile
    def items():
        try:
            yield from range(10)
        finally:
            events.append("closed")

    with profiled.request():
        generator = items()
        next(generator)
        generator.close()

    assert events == ["closed"]
    assert len(profiled.profiles()) == 1
    until(profiled.is_clean)


def test_a_generator_that_is_forgotten(profiled):
    """
    A generator that the collector ends gives its place back, and its span is no longer current.
    """

    @profile
    def items():
        yield from range(10)

    next(items())
    gc.collect()

    assert trace.get_current_span() is trace.INVALID_SPAN
    with profile() as taken:
        pass
    assert taken.refused is None


@both
def test_an_asynchronous_generator_stays_one(profiled, decorate):
    """
    An asynchronous generator takes what is sent and thrown into it, as without.
    """
    events = []

    @decorate
    async def items():
        try:
            got = yield 1
            events.append(got)
            await asyncio.sleep(0)
            try:
                yield 2
            except KeyError:
                events.append("thrown")
            yield 3
        finally:
            events.append("closed")

    async def main():
        generator = items()
        assert await anext(generator) == 1
        assert await generator.asend("sent") == 2
        assert await generator.athrow(KeyError) == 3
        with pytest.raises(StopAsyncIteration):
            await anext(generator)
        return [each async for each in items()]

    assert inspect.isasyncgenfunction(items)
    with profiled.request():
        assert asyncio.run(main()) == [1, 2, 3]
    assert events == ["sent", "thrown", "closed", None, "closed"]
    assert len(profiled.profiles()) == 2


def test_an_asynchronous_generator_that_is_closed_early(profiled):
    """
    Closing an asynchronous generator closes the one within before it returns.
    """
    events = []

    @profile
    async def items():
        try:
            yield 1
            yield 2
        finally:
            events.append("closed")

    async def main():
        generator = items()
        await anext(generator)
        await generator.aclose()
        return list(events)

    with profiled.request():
        assert asyncio.run(main()) == ["closed"]
    assert len(profiled.profiles()) == 1


def test_an_asynchronous_generator_that_nobody_reads_to_its_end(profiled, caplog):
    """
    The loop ends it, in another context than its own: the profile is there, and nobody logs an error.
    """

    @profile
    async def items():
        work(0.04)
        yield 1
        yield 2

    async def main():
        async for _ in items():
            break

    asyncio.run(main())

    assert len(profiled.profiles()) == 1
    assert caplog.records == []
    assert not faults.counts


def test_methods(profiled):
    """
    Methods, class methods, static methods and properties, each below its own decorator.
    """

    class Report:
        @profile
        def method(self, n):
            return type(self), n

        @classmethod
        @profile
        def of_class(cls, n):
            return cls, n

        @staticmethod
        @profile
        def static(n):
            return n

        @property
        @profile
        def value(self):
            return "value"

    assert Report().method(1) == (Report, 1)
    assert Report.of_class(2) == Report().of_class(2) == (Report, 2)
    assert Report.static(3) == Report().static(3) == 3
    assert Report().value == "value"
    assert len(profiled.profiles()) == 6


@pytest.mark.parametrize(
    "thing",
    [5, "name", staticmethod(len), classmethod(len), property(len), type("Cls", (), {})],
    ids=lambda thing: type(thing).__name__,
)
def test_what_can_not_be_decorated(thing):
    """
    What would not be the same afterwards is refused where it is decorated.
    """
    with pytest.raises(TypeError, match="profile decorates functions"):
        profile(thing)


def test_callables_of_other_kinds(profiled):
    """
    A partial, a builtin and an object that can be called are decorated as well.
    """

    class Adder:
        def __call__(self, a, b):
            return a + b

    assert profile(Adder())(1, 2) == 3
    assert profile(len)("four") == 4
    assert profile(pow)(2, 3) == 8
    assert len(profiled.spans()) == 3


def test_each_call_has_its_own(profiled):
    """
    One decorator serves many calls, on many threads: each has a profile of its own or is refused, and all have run.
    """

    @profile
    def count(n):
        busy(0.002)
        return n

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(40))) == list(range(40))

    taken = [event.attributes[ID] for event in profiled.profiles()]
    assert len(set(taken)) == len(taken) >= 1
    assert len(taken) + faults.counts["refused", "profile: busy"] == 40
    until(profiled.is_clean)


# --- Threads, tasks, pools ------------------------------------------------------------------------------------------


def test_in_a_thread(profiled):
    """
    A block in another thread is seen by the introspector's, and nothing of the main thread's is in it.
    """

    def run():
        with profiled.request(), profile():
            work(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    idle(0.01)
    thread.join()

    assert "work" in profiled.text()
    assert "idle" not in profiled.text()
    assert "join" not in profiled.text()


async def own_work():
    for _ in range(10):
        busy(0.004)
        await asyncio.sleep(0.002)


async def foreign_work():
    for _ in range(10):
        foreign(0.004)
        await asyncio.sleep(0.001)


def foreign(seconds):
    busy(seconds)


def test_two_tasks_of_which_one_is_profiled(profiled):
    """
    Of two tasks that take turns, only what the profiled one does is in its profile.
    """

    async def one():
        with profiled.request(), profile():
            await own_work()

    async def main():
        await asyncio.gather(one(), foreign_work(), foreign_work())

    asyncio.run(main())

    text = profiled.text()
    assert "own_work" in text
    assert "foreign" not in text


def test_gathered_tasks_are_seen(profiled):
    """
    What a task has its children do is its own work.
    """

    async def child():
        busy(0.05)

    async def one():
        with profiled.request(), profile():
            await asyncio.gather(child(), child())

    async def main():
        await asyncio.gather(one(), foreign_work())

    asyncio.run(main())

    assert "child" in profiled.text()
    assert "foreign" not in profiled.text()


def test_to_thread_is_seen(profiled):
    """
    Work that a task hands to a thread is its own, and other tasks' is not.
    """

    async def one():
        with profiled.request(), profile():
            await asyncio.to_thread(work, 0.4)

    async def other():
        await asyncio.to_thread(foreign, 0.4)

    async def main():
        await asyncio.gather(one(), other())

    asyncio.run(main())

    assert "work" in profiled.text()
    assert "foreign" not in profiled.text()


def test_executors_are_seen(profiled):
    """
    Work that a block hands to a pool and waits for is in its profile; what others hand to the same pool is not.
    """
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(foreign, 0.15)
        with profiled.request(), profile():
            pool.submit(work, 0.15).result()
        before.result()

    assert "work" in profiled.text()
    assert "foreign" not in profiled.text()


# --- pyinstrument's own profiler ------------------------------------------------------------------------------------


@pytest.fixture(name="hooked")
def _hooked(make_profiled):
    return make_profiled(engine="pyinstrument")


def test_pyinstrument_s_engine(hooked):
    """
    With pyinstrument's own profiler the event is the same, and says so; its hook is gone afterwards.
    """
    seen = []
    with hooked.request(), profile() as taken:
        work()
        seen.append(sys.getprofile())

    (event,) = hooked.profiles()
    assert seen != [None]
    assert sys.getprofile() is None
    assert event.attributes["otel_introspect.profile.engine"] == "pyinstrument"
    assert event.attributes["otel_introspect.profile.trigger"] == "code"
    assert event.attributes["otel_introspect.profile.sample_count"] > 5
    assert event.attributes[ID] == taken.id
    assert "work" in event.attributes[TEXT]
    assert "work" in taken.text()
    assert not faults.counts


def test_pyinstrument_s_engine_in_a_coroutine(hooked):
    """
    It follows the task in which it was started.
    """

    @profile
    async def fetch():
        await own_work()

    async def main():
        await asyncio.gather(fetch(), foreign_work())

    asyncio.run(main())

    (event,) = hooked.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "pyinstrument"
    assert "own_work" in event.attributes[TEXT]
    assert "foreign" not in event.attributes[TEXT]
    assert sys.getprofile() is None


def test_pyinstrument_s_engine_in_a_thread(hooked):
    """
    In a thread it profiles that thread.
    """

    def run():
        with hooked.request(), profile():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    (event,) = hooked.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "pyinstrument"
    first, second, *_ = event.attributes[TEXT].splitlines()
    assert " run " in first
    assert " work " in second


def test_pyinstrument_s_engine_when_the_block_fails(hooked):
    """
    An exception does not leave the hook behind.
    """
    with pytest.raises(KeyError), profile():
        raise KeyError

    assert sys.getprofile() is None


def test_somebody_else_has_the_hook(hooked):
    """
    A profile function that is set is left alone: the sampler does it.
    """
    calls = []

    def theirs(*_args):
        calls.append(1)

    sys.setprofile(theirs)
    try:
        with hooked.request(), profile():
            work()
            assert sys.getprofile() is theirs
        assert sys.getprofile() is theirs
    finally:
        sys.setprofile(None)

    (event,) = hooked.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "sampler"
    assert "work" in event.attributes[TEXT]
    assert calls


@pytest.mark.parametrize("engine", ["sampler", "pyinstrument"])
def test_beside_cprofile(make_profiled, engine):
    """
    cProfile that is running goes on, and the sampler takes our profile.
    """
    profiled = make_profiled(engine=engine)
    theirs = cProfile.Profile()
    theirs.enable()
    try:
        with profiled.request(), profile():
            work()
    finally:
        theirs.disable()

    (event,) = profiled.profiles()
    assert event.attributes["otel_introspect.profile.engine"] == "sampler"
    theirs.create_stats()
    assert any(name == "busy" for _, _, name in theirs.stats)


def test_the_sampler_leaves_hooks_alone(profiled):
    """
    The sampler neither sets nor takes a profile or trace function, a debugger's for instance.
    """

    def debugger(*_args):
        return None

    before = sys.gettrace()
    sys.settrace(debugger)
    try:
        with profiled.request(), profile():
            work(0.06)
            assert sys.gettrace() is debugger
            assert sys.getprofile() is None
        assert sys.gettrace() is debugger
    finally:
        sys.settrace(before)

    assert "work" in profiled.text()


def test_somebody_else_has_sigalrm(profiled):
    """
    A handler of the application's on SIGALRM stays: the introspector's thread does the sampling.
    """
    calls = []

    def theirs(*_args):
        calls.append(1)

    introspection.ALARM.dismiss()
    before = signal.signal(signal.SIGALRM, theirs)
    try:
        with profiled.request(), profile():
            work(0.1)
        assert signal.getsignal(signal.SIGALRM) is theirs
    finally:
        signal.signal(signal.SIGALRM, before)

    assert "work" in profiled.text()
    assert calls == []


# --- Whatever of ours is broken -------------------------------------------------------------------------------------


def broken(*_args, **_kwargs):
    raise RuntimeError("broken")


BREAKABLE = [
    "otel_introspect.profiles.active_or_own",
    "otel_introspect.profiles.here",
    "otel_introspect.profiles.positions_of",
    "otel_introspect.profiling.pools.follow",
    "otel_introspect.introspection.Introspection.tracer",
    "otel_introspect.profiling.profiler.Sampled",
    "otel_introspect.profiling.profiler.LiveProfile",
    "otel_introspect.profiling.profiler.Sampler.start",
    "otel_introspect.profiling.profiler.Sampler.stop",
    "otel_introspect.profiling.profiler.Sampler.tick",
    "otel_introspect.profiling.profiler.console_text",
    "otel_introspect.profiling.profiler.summed_session",
    "otel_introspect.engine.introspector.Introspector.do",
    "otel_introspect.engine.introspector.Introspector.wake",
    "otel_introspect.sinks.reporter.SpanReporter.expect_profile",
    "otel_introspect.sinks.reporter.SpanReporter.expect_no_profile",
    "otel_introspect.sinks.reporter.SpanReporter.room_for_profile",
    "otel_introspect.sinks.reporter.SpanReporter.report_profile",
    "otel_introspect.sinks.span_events.SpanEventSink.emit",
    "otel_introspect.engine.recording.Recording.add",
    "otel_introspect.engine.recording.Recording.fold",
]


@pytest.mark.parametrize("engine", ["sampler", "pyinstrument"])
@pytest.mark.parametrize("part", BREAKABLE)
def test_whatever_is_broken_the_application_goes_on(make_profiled, monkeypatch, part, engine):
    """
    Whatever of ours raises, the block's result is its own, a fault is counted, and the next block works.
    """
    profiled = make_profiled(engine=engine)

    @profile
    def answer():
        work(0.06)
        return 42

    with monkeypatch.context() as patch:
        patch.setattr(part, broken)
        assert answer() == 42
        with profiled.request():
            assert answer() == 42

    assert any(kind == "failed" for kind, _ in faults.counts) or engine == "pyinstrument"
    assert sys.getprofile() is None
    assert trace.get_current_span() is trace.INVALID_SPAN
    with profiled.request("later"), profile() as taken:
        work(0.1)  # long enough for a busy machine
    assert taken.refused is None
    assert "work" in profiled.text("later")
    if not part.endswith("Sampler.stop"):  # what was not stopped is dropped with the sampler
        until(profiled.is_clean)


def test_a_refusal_for_a_fault_of_ours(profiled, monkeypatch):
    """
    Where a fault of ours keeps a profile from being taken, the object says so.
    """
    monkeypatch.setattr("otel_introspect.profiling.profiler.Sampler.start", broken)
    with profiled.request(), profile() as taken:
        pass

    assert taken.refused == "failed"
    assert taken.text() == ""


def test_a_fault_is_counted_once(profiled, monkeypatch):
    """
    A profile that could not even begin has nothing to end: there is one fault, not two.
    """
    monkeypatch.setattr("otel_introspect.profiles.active_or_own", broken)
    with profiled.request(), profile():
        pass

    assert faults.counts == {("failed", "beginning a profile"): 1}


def test_a_store_that_fails(make_profiled, monkeypatch, tmp_path):
    """
    A store that raises costs the link only.
    """
    profiled = make_profiled(store=str(tmp_path))
    monkeypatch.setattr(profiled.profiler.store, "put", broken)
    with profiled.request(), profile():
        work(0.06)

    (event,) = profiled.profiles()
    assert "otel_introspect.profile.url" not in event.attributes
    assert "work" in event.attributes[TEXT]
    assert faults.counts == {("failed", "storing a profile"): 1}


def test_a_span_that_raises(profiled):
    """
    A span of somebody else's making may raise at every call.
    """

    class Broken(trace.NonRecordingSpan):
        def is_recording(self):
            raise OSError

    span = Broken(trace.INVALID_SPAN_CONTEXT)
    with trace.use_span(span, record_exception=False, set_status_on_exception=False), profile():
        work(0.01)

    assert faults.counts["failed", "beginning a profile"] == 1


# --- Nothing is left ------------------------------------------------------------------------------------------------


def test_no_local_variable_is_kept_alive(profiled):
    """
    What the block's functions had is gone when they are, though the profile is still there.
    """

    class Thing:
        pass

    references = []

    def run():
        thing = Thing()
        references.append(weakref.ref(thing))
        busy(0.05)

    with profile() as taken:
        run()
        gc.collect()
        assert references[0]() is None

    assert "run" in taken.text()


def test_the_object_does_not_keep_the_span(profiled):
    """
    Holding on to the profile does not hold the span.
    """
    span = profiled.tracer.start_span("GET /")
    reference = weakref.ref(span)
    with trace.use_span(span, end_on_exit=True), profile() as taken:
        work(0.04)
    del span
    gc.collect()

    assert reference() is None
    assert "work" in taken.text()


def test_the_status_is_the_application_s(profiled):
    """
    A profile says nothing of success or failure.
    """
    with profiled.request(), profile():
        work(0.01)

    assert profiled.span().status.status_code is StatusCode.UNSET
