"""Our own faults: swallowed, counted, told once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from otel_introspect import faults
from otel_introspect.faults import count, counts, fail_open, failed, forget, tell_once

DOING = "testing"


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(record.msg)


@pytest.fixture(name="broken_logging")
def _broken_logging():
    handler = Broken()
    logger = logging.getLogger(faults.__name__)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def test_nothing_wrong_nothing_said(caplog):
    """
    A body that works is not counted and not mentioned.
    """
    with fail_open(DOING):
        pass

    assert not counts
    assert caplog.records == []


def test_an_exception_is_swallowed_counted_and_logged(caplog):
    """
    An ``Exception`` ends in the log with what was being done, its traceback, and that the application is unaffected.
    """
    error = ValueError("no")
    with fail_open(DOING):
        raise error

    assert counts == {("failed", DOING): 1}
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("otel_introspect failed while testing; the application is unaffected.")
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_logged_once_for_each_place(caplog):
    """
    The same fault again is only counted; one at another place has a line of its own.
    """
    for _ in range(100):
        with fail_open(DOING):
            raise ValueError
    with fail_open("testing something else"):
        raise ValueError

    assert counts == {("failed", DOING): 100, ("failed", "testing something else"): 1}
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_interruptions_pass(error, caplog):
    """
    What is no ``Exception`` belongs to the application: it passes, uncounted.
    """
    with pytest.raises(error), fail_open(DOING):
        raise error

    assert not counts
    assert caplog.records == []


@pytest.mark.usefixtures("broken_logging")
def test_logging_that_raises():
    """
    A handler of the application's that raises does not reach the request, and is counted.
    """
    with fail_open(DOING):
        raise ValueError
    tell_once(logging.WARNING, "a notice")

    assert counts == {
        ("failed", DOING): 1,
        ("failed", "logging a fault"): 1,
        ("failed", "logging a notice"): 1,
    }


def test_failed_without_a_with():
    """
    ``failed`` does the same for an error that has been caught already.
    """
    failed(DOING, ValueError())

    assert counts == {("failed", DOING): 1}


def test_the_same_one_can_be_used_again():
    """
    One ``fail_open`` may be entered many times, also within itself.
    """
    again = fail_open(DOING)
    with again, again:
        raise ValueError
    with again:
        raise ValueError

    assert counts == {("failed", DOING): 2}


def test_count_says_nothing(caplog):
    """
    Losing evidence to a bound is normal: counted by kind and reason, never logged.
    """
    count("dropped", "no room")
    count("dropped", "no room")
    count("refused", "no room")

    assert counts == {("dropped", "no room"): 2, ("refused", "no room"): 1}
    assert caplog.records == []


def test_tell_once(caplog):
    """
    A notice is said once for each set of arguments.
    """
    for _ in range(3):
        tell_once(logging.WARNING, "%s is off", "a")
        tell_once(logging.WARNING, "%s is off", "b")

    assert [record.getMessage() for record in caplog.records] == ["a is off", "b is off"]


def test_forget(caplog):
    """
    After ``forget`` there are no counts, and all is said anew.
    """
    with fail_open(DOING):
        raise ValueError
    forget()
    assert not counts

    with fail_open(DOING):
        raise ValueError
    assert len(caplog.records) == 2
