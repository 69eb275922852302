"""What the current span says of a block that took too long."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import traceback

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, in_thread, run_script, script, spin
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from otel_introspect import DeadlineExceeded, Quota, timeout

PREFIX = "otel_introspect.timeout."


def waits_here(seconds=FOREVER):
    time.sleep(seconds)


def busy_here():
    spin(FOREVER)


async def awaits_here():
    await asyncio.sleep(FOREVER)


def interrupt(exception=Expired, work=waits_here, seconds=LIMIT):
    with pytest.raises(BaseException), timeout(seconds, exception):  # noqa: PT011, B017 - whatever it is
        work()


def test_names_and_types(spans):
    """
    An interruption leaves exactly these attributes, of exactly these types.
    """
    with spans.current():
        interrupt()
    attributes = dict(spans.named().attributes)
    event = spans.event()

    assert {name: type(value) for name, value in attributes.items()} == {
        "otel_introspect.interrupted": bool,
        "error.type": str,
    }
    assert {name: type(value) for name, value in event.items()} == {
        "otel_introspect.timeout.limit_ms": int,
        "otel_introspect.timeout.elapsed_ms": int,
        "otel_introspect.timeout.mechanism": str,
        "otel_introspect.timeout.enforced": bool,
        "otel_introspect.timeout.attempts": int,
        "code.stacktrace": str,
    }


def test_what_an_interruption_says(spans):
    """
    The span is an error, and its event says how long was allowed, how long it took, and by what means it ended.
    """
    with spans.current():
        interrupt()
    span, event = spans.named(), spans.event()

    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["otel_introspect.interrupted"] is True
    assert event[PREFIX + "limit_ms"] == 50
    assert 50 <= event[PREFIX + "elapsed_ms"] < PATIENCE * 1000
    assert event[PREFIX + "mechanism"] == "alarm"
    assert event[PREFIX + "enforced"] is True
    assert event[PREFIX + "attempts"] == 1


def test_the_stack_is_the_work_s(spans):
    """
    The stack ends where the work was interrupted, in Python's own order, without frames of ours.
    """
    with spans.current():
        interrupt()
    text = spans.event()["code.stacktrace"]
    lines = [line for line in text.splitlines() if line.strip().startswith("File ")]

    assert "in waits_here" in lines[-1]
    assert "in interrupt" in lines[-2]
    assert "time.sleep(seconds)" in text
    assert "otel_introspect/" not in text.replace("tests/", "")
    assert len(text.encode()) <= 2000


@pytest.mark.parametrize("depth", [5, 200])
def test_a_deep_stack_keeps_its_innermost_frames(spans, depth):
    """
    However deep the work was, the text keeps to its bytes and shows where it was.
    """

    def recurse(level):
        if level:
            recurse(level - 1)
        else:
            waits_here()

    with spans.current():
        interrupt(work=lambda: recurse(depth))
    text = spans.event()["code.stacktrace"]

    assert "in waits_here" in text
    assert len(text.encode()) <= 2000


class Nested:
    """Where an exception is defined within a class."""

    class Slow(Exception):  # noqa: N818 - its name is what it is
        """Its qualified name has a dot."""


@pytest.mark.parametrize(
    ("exception", "name"),
    [
        (DeadlineExceeded, "DeadlineExceeded"),
        (Expired, "Expired"),
        (Expired("an instance"), "Expired"),
        (lambda: Expired("made"), "Expired"),
        (Nested.Slow, "Nested.Slow"),
        (TimeoutError, "TimeoutError"),
    ],
    ids=["default", "class", "instance", "factory", "nested class", "built in"],
)
def test_the_type_of_the_error(spans, exception, name):
    """
    ``error.type`` is the qualified name of the exception's class, as OpenTelemetry's own instrumentations write it.
    """
    with spans.current():
        interrupt(exception)

    assert spans.named().attributes["error.type"] == name


def test_a_block_in_time_writes_nothing(spans):
    """
    A span whose blocks end in time is as it would have been.
    """
    with spans.current():
        with timeout(FOREVER), timeout(FOREVER), timeout(None):
            pass
        with contextlib.suppress(KeyError), timeout(FOREVER):
            raise KeyError
    span = spans.named()

    assert (span.events, dict(span.attributes), span.status.status_code) == ((), {}, StatusCode.UNSET)


def test_the_current_span_at_the_block_s_end_has_it(spans):
    """
    The evidence goes to the span around the block, not to one that was open inside it.
    """

    def work():
        with spans.current("inside"):
            waits_here()

    with spans.current("around"):
        interrupt(work=work)

    assert len(spans.events("around")) == 1
    assert spans.events("inside") == []
    assert "in waits_here" in spans.event("around")["code.stacktrace"]


def test_each_block_has_its_event(spans):
    """
    A span with several interrupted blocks has an event for each, in their order.
    """
    with spans.current():
        for seconds in (0.03, 0.06, 0.04):
            interrupt(seconds=seconds)

    assert [event[PREFIX + "limit_ms"] for event in spans.events()] == [30, 60, 40]


def test_of_nested_blocks_the_one_that_fired_writes(spans):
    """
    A block that another one's interruption passes through has not been interrupted by its own limit.
    """
    with spans.current():
        with pytest.raises(Outer), timeout(0.04, Outer), timeout(FOREVER, Inner):
            waits_here()
        with timeout(FOREVER, Outer), pytest.raises(Inner), timeout(0.06, Inner):
            waits_here()

    assert [event[PREFIX + "limit_ms"] for event in spans.events()] == [40, 60]


def test_a_quota_s_limit_is_what_was_left_of_it(spans):
    """
    A block whose quota runs out says how long that block was allowed to take.
    """
    quota = Quota(FOREVER)
    quota_left = Quota(0.05)
    with spans.current(), contextlib.suppress(Expired), timeout(quota, Outer), timeout(quota_left, Expired):
        waits_here()

    assert 45 <= spans.event()[PREFIX + "limit_ms"] <= 50


def test_an_interruption_that_the_block_caught_itself(spans):
    """
    Where the work catches the exception within the block, the event says that it was raised.
    """
    with spans.current(), timeout(LIMIT, Expired), contextlib.suppress(Expired):
        waits_here()
    event = spans.event()

    assert event[PREFIX + "attempts"] == 1
    assert "in waits_here" in event["code.stacktrace"]


def test_an_interruption_that_was_swallowed_once(spans):
    """
    An interruption that ended the work at the second attempt says so.
    """

    def work():
        with contextlib.suppress(Expired):
            waits_here()
        waits_here()

    with spans.current():
        interrupt(work=work)
    event = spans.event()

    assert event[PREFIX + "attempts"] == 2
    assert event[PREFIX + "enforced"] is True
    assert event[PREFIX + "elapsed_ms"] >= 550
    assert spans.named().attributes["otel_introspect.interrupted"] is True


def test_a_task(spans):
    """
    A task's interruption names its mechanism and the chain of awaits that it was parked on.
    """

    async def main():
        with spans.current(), pytest.raises(Expired):
            async with timeout(LIMIT, Expired):
                await awaits_here()

    asyncio.run(main())
    span, event = spans.named(), spans.event()

    assert event[PREFIX + "mechanism"] == "task_cancel"
    assert event[PREFIX + "enforced"] is True
    assert event[PREFIX + "limit_ms"] == 50
    assert "in awaits_here" in event["code.stacktrace"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.attributes["error.type"] == "Expired"


def test_tasks_beside_each_other_keep_their_evidence_apart(spans):
    """
    Each task's interruption is on its own span.
    """

    async def work(number):
        with spans.current(f"task {number}"), contextlib.suppress(Expired):
            async with timeout(LIMIT if number % 2 else FOREVER, Expired):
                await asyncio.sleep(FOREVER if number % 2 else 3 * LIMIT)

    async def main():
        await asyncio.gather(*(work(number) for number in range(6)))

    asyncio.run(main())

    assert [len(spans.events(f"task {number}")) for number in range(6)] == [0, 1, 0, 1, 0, 1]


def test_a_thread(spans):
    """
    A thread's interruption names its mechanism and the place.
    """

    def work():
        with spans.current():
            interrupt(work=busy_here)

    in_thread(work)
    event = spans.event()

    assert event[PREFIX + "mechanism"] == "async_exception"
    assert event[PREFIX + "enforced"] is True
    assert "in busy_here" in event["code.stacktrace"]
    assert spans.named().status.status_code is StatusCode.ERROR


def test_a_task_that_blocks_its_loop_is_an_overrun(spans):
    """
    A block that outlives its deadline uninterrupted says so, and makes no error of the span.
    """

    async def main():
        with spans.current():
            async with timeout(LIMIT, Expired):
                time.sleep(4 * LIMIT)

    asyncio.run(main())
    span, event = spans.named(), spans.event()

    assert event[PREFIX + "enforced"] is False
    assert event[PREFIX + "limit_ms"] == 50
    assert event[PREFIX + "elapsed_ms"] >= 4 * LIMIT * 1000 * 0.9
    assert event[PREFIX + "mechanism"] == "task_cancel"
    assert type(event[PREFIX + "attempts"]) is int
    assert dict(span.attributes) == {}
    assert span.status.status_code is StatusCode.UNSET


def test_an_alarm_that_never_came_is_an_overrun(spans):
    """
    A block that ends late although nothing was raised in it is recorded, not interrupted behind its end.
    """
    with spans.current():
        with timeout(LIMIT, Expired):
            signal.setitimer(signal.ITIMER_REAL, 0)  # as somebody may who knows nothing of us
            time.sleep(3 * LIMIT)
        time.sleep(LIMIT)
    event = spans.event()

    assert event[PREFIX + "enforced"] is False
    assert event[PREFIX + "attempts"] == 0
    assert dict(spans.named().attributes) == {}


def test_a_span_that_is_not_recorded_is_left_alone():
    """
    Where the current span records nothing, or there is none, the block is interrupted all the same.
    """
    interrupt()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    with provider.get_tracer(__name__).start_as_current_span("work") as span:
        interrupt()

        assert not span.is_recording()
    with trace.use_span(trace.INVALID_SPAN):
        interrupt()
    provider.shutdown()


def test_a_span_that_has_ended_is_left_alone(spans, caplog):
    """
    A current span that has ended already is not written to, and the SDK has nothing to warn of.
    """
    span = spans.tracer.start_span("work")
    with trace.use_span(span):
        span.end()
        interrupt()

    assert spans.events() == []
    assert "ended span" not in caplog.text


def test_an_exception_that_leaves_the_span_is_the_sdk_s_to_record(spans):
    """
    Where the interruption leaves the span, the SDK's own record of it stands beside ours.
    """
    with pytest.raises(Expired), spans.current(), timeout(LIMIT, Expired("slow")):
        waits_here()
    span = spans.named()

    assert sorted(event.name for event in span.events) == ["exception", "otel_introspect.timeout"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["otel_introspect.interrupted"] is True


def test_a_generator_writes_to_the_span_of_its_consumer(spans):
    """
    A decorated generator's interruption is on the span that is current where it runs.
    """

    @timeout(LIMIT, Expired)
    def numbers():
        yield 1
        waits_here()

    with spans.current(), pytest.raises(Expired):
        list(numbers())

    assert spans.event()[PREFIX + "limit_ms"] == 50
    assert "in waits_here" in spans.event()["code.stacktrace"]


def test_a_used_up_quota_names_no_mechanism_of_its_own(spans):
    """
    What is said of a block that was not begun, if anything, keeps to the contract's names.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Expired), timeout(quota, Expired):
        waits_here()
    with spans.current(), pytest.raises(Expired), timeout(quota, Expired):
        pytest.fail("begun")

    mechanisms = {"alarm", "task_cancel", "async_exception", "greenlet"}
    assert {event[PREFIX + "mechanism"] for event in spans.events()} <= mechanisms


def test_no_frame_is_kept_alive():
    """
    After the block nothing holds on to what the interrupted work had.
    """

    class Precious:
        """Gone when nobody holds it."""

        gone = False

        def __del__(self):
            Precious.gone = True

    def work():
        precious = Precious()
        waits_here()
        return precious

    try:
        with timeout(LIMIT, Expired):
            work()
    except Expired as error:
        traceback.clear_frames(error.__traceback__)
        del error

    assert Precious.gone


@pytest.mark.parametrize("deferral", [200, 0])
def test_an_interruption_that_found_no_safe_place(deferral):
    """
    An interruption that may not wait any longer for a safe place is given up, recorded, and not made up for.
    """
    (found,), _ = run_script(
        script(
            """
            class Leaving:
                def __enter__(self): return self
                def __exit__(self, *exc_info):
                    time.sleep(0.8)
            def work():
                with timeout(0.05, Expired):
                    with Leaving(): pass
                    end = time.monotonic() + 0.2
                    while time.monotonic() < end: pass
                return "to its end"
            with tracer.start_as_current_span("work"):
                result = outcome(work)
            say(result, events(), dict(exporter.get_finished_spans()[0].attributes))
            """,
            tracing=True,
        ),
        OTEL_PYTHON_INTROSPECT_TIMEOUT_MAX_DEFERRAL=str(deferral),
    )
    result, (event,), attributes = found

    assert result == "to its end"
    assert event[PREFIX + "enforced"] is False
    assert event[PREFIX + "attempts"] == 0
    assert event[PREFIX + "elapsed_ms"] >= 800
    assert attributes == {}
