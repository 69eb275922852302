"""A time account that many blocks share."""

# ruff: noqa: PT012 - what a limit interrupts is rarely a single statement

from __future__ import annotations

import asyncio
import math
import time

import pytest
from interruptions import FOREVER, LIMIT, PATIENCE, Expired, Inner, Outer, in_thread, spin

from otel_introspect import Quota, timeout


def test_time_between_blocks_does_not_count():
    """
    A quota counts only while a block that uses it is open.
    """
    quota = Quota(3 * LIMIT)
    for _ in range(4):
        with timeout(quota, Expired):
            pass
        time.sleep(LIMIT)

    assert quota.remaining() > 1.5 * LIMIT


def test_it_says_whether_it_runs():
    """
    ``running()`` is true from the outermost block's begin to its end.
    """
    quota = Quota(FOREVER)
    seen = [quota.running()]
    with timeout(quota):
        with timeout(quota):
            seen.append(quota.running())
        seen.append(quota.running())
    seen.append(quota.running())

    assert seen == [False, True, True, False]


def test_what_is_left_goes_down_while_it_runs():
    """
    ``remaining()`` is a number of seconds that goes down within a block and stands still outside.
    """
    quota = Quota(FOREVER)
    assert quota.remaining() == FOREVER
    with timeout(quota) as limit:
        spin(0.02)
        first = quota.remaining()
        spin(0.02)
        second = quota.remaining()
        assert limit.remaining() <= second
    after = quota.remaining()
    spin(0.02)

    assert FOREVER - PATIENCE < after <= second < first < FOREVER
    assert quota.remaining() == after


def test_one_that_is_used_up_raises_before_the_body():
    """
    A block whose quota is gone is not begun, and the quota does not run afterwards.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Expired), timeout(quota, Expired):
        time.sleep(FOREVER)
    begun = []
    for _ in range(3):
        with pytest.raises(Expired), timeout(quota, Expired):
            begun.append(True)

    assert begun == []
    assert quota.remaining() == 0
    assert quota.running() is False


def test_one_that_is_used_up_raises_what_each_block_names():
    """
    The exception belongs to the block, the time to the quota.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Expired), timeout(quota, Expired):
        time.sleep(FOREVER)

    with pytest.raises(Inner), timeout(quota, Inner("mine")):
        pass
    with pytest.raises(Outer), timeout(quota, lambda: Outer("made")):
        pass


def test_one_that_is_used_up_leaves_the_limit_around_it():
    """
    Raising before the body disturbs no block around it.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Expired), timeout(quota, Expired):
        time.sleep(FOREVER)

    with pytest.raises(Outer), timeout(3 * LIMIT, Outer):
        with pytest.raises(Inner), timeout(quota, Inner):
            pass
        time.sleep(FOREVER)


def test_nested_uses_raise_the_outermost_s_exception():
    """
    Blocks that share a quota are due at the same time, so that the outermost wins.
    """
    quota = Quota(LIMIT)
    with pytest.raises(Outer), timeout(quota, Outer), timeout(quota, Inner):
        time.sleep(FOREVER)

    assert quota.running() is False


def test_two_quotas_at_once():
    """
    Quotas inside each other count each for itself.
    """
    long, short = Quota(FOREVER), Quota(LIMIT)
    with pytest.raises(Inner), timeout(long, Outer), timeout(short, Inner):
        time.sleep(FOREVER)

    assert short.remaining() == 0
    assert long.remaining() > FOREVER - PATIENCE


def test_an_exception_of_the_work_s_own_stops_it():
    """
    A block that raises stops the count, too.
    """
    quota = Quota(FOREVER)
    with pytest.raises(KeyError), timeout(quota):
        raise KeyError

    assert quota.running() is False


@pytest.mark.parametrize("seconds", [0, -1, -0.5, math.nan])
def test_no_time_at_all_is_refused(seconds):
    """
    A quota of nothing or less, or of no number, is a ``ValueError``.
    """
    with pytest.raises(ValueError, match=r"\S"):
        Quota(seconds)


def test_in_a_task():
    """
    A task uses up a quota while its blocks are open, and is interrupted when it is gone.
    """
    quota = Quota(3 * LIMIT)

    async def main():
        with pytest.raises(Expired):
            while True:
                async with timeout(quota, Expired):
                    await asyncio.sleep(LIMIT)
                await asyncio.sleep(LIMIT)
        with pytest.raises(Expired):
            async with timeout(quota, Expired):
                pytest.fail("begun")

    asyncio.run(main())

    assert quota.remaining() == 0


def test_in_a_thread():
    """
    A thread uses up a quota, and the main thread finds it used up.
    """
    quota = Quota(LIMIT)

    def work():
        with timeout(quota, Inner):
            spin(FOREVER)

    with pytest.raises(Inner):
        in_thread(work)
    with pytest.raises(Expired), timeout(quota, Expired):
        pytest.fail("begun")
