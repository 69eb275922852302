"""The sampler: looks again and again where the requests that are being profiled are.

What is wanted: a sample each millisecond of code that keeps the processor busy, for a few percent of its time.

What does not work: a thread. It waits up to 5 ms for the GIL each time (``sys.getswitchinterval``), and takes it away
from the request each time.

So: what runs in the main thread is sampled by the alarm's handler, which runs on top of it and sees regular
expressions, too. All else is sampled by the introspector's thread. That also stands in where the alarm is silent, as in
a call in C that does not look for POSIX signals, and folds in what the handler has put down. Both write to the same
recording.

The interval doubles each time that a recording's age doubles, after its first two thousand samples; and it is longer
for all while we use too much of the process's CPU time.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from math import inf
from types import FrameType
from typing import Any, Final

from otel_introspect.engine.alarm import ALARM
from otel_introspect.engine.cpu_share import CpuShare
from otel_introspect.engine.handover import is_waiting, threads_of, work_on, working
from otel_introspect.engine.native import get_ident, is_main_thread, main_thread_id
from otel_introspect.engine.places import Place, ThreadPlace
from otel_introspect.engine.recording import AWAITING, MAX_FRAMES, RUNNING, RawStack, Recording, raw_stack
from otel_introspect.engine.stacks import can_walk_other_threads, current_frames
from otel_introspect.faults import count, fail_open

MAX_THREADS: Final = 25
"""Sampled by the introspector in one tick; of more, each has its turn."""
_FULL_RATE_SAMPLES: Final = 2_000
UNEVEN: Final = 0.97
"""How much of the interval is kept to: work in even turns, of 100 ms say, would be met at the same moments of each."""
# A sample that comes so much later than it should was kept away by a call in C that has not let go of the GIL.
_GAP_INTERVALS: Final = 3
_GAP_SECONDS: Final = 0.08
# Where the alarm has been silent for so long, the introspector looks: soon enough for that to be no gap.
_SILENCE_INTERVALS: Final = 2
_SILENCE: Final = 0.03
_SUMMON_AGAIN: Final = 0.5
_SUMMON_FIRST: Final = 0.05
_SUMMON_SOON: Final = 0.1
# How often what the alarm's handler has put down is folded in.
_FOLD: Final = 0.04
_SAMPLING: Final = "taking a sample"
# The frames of these go on elsewhere with the same innermost frame.
_SUSPENDABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_NO_LEAF: Final = (0, 0, 0, 0)


class Sampled:
    """One request, or a part of one, that is being sampled.

    Args:
        key: Of its entry span; what is handed to a pool is followed by it.
        where: Says where it is now: a thread's id, a place, or None if nobody knows.
        interval: In seconds.
        now: When it begins, by ``time.monotonic``.
    """

    __slots__ = (
        "alarm_count",
        "alarm_heard",
        "alarm_is_there",
        "asked",
        "interval",
        "key",
        "leaf",
        "longest",
        "next_at",
        "pause",
        "recording",
        "unheard",
        "where",
    )

    def __init__(self, key: Hashable, where: Callable[[], int | Place | None], interval: float, now: float) -> None:
        self.key: Final = key
        self.where: Final = where
        self.interval: Final = interval
        self.recording: Final = Recording(now)
        self.leaf: tuple[int, int, int, int] = _NO_LEAF
        self.alarm_count = 0
        """How many of its samples the alarm has taken."""
        self.alarm_is_there = False
        self.alarm_heard = now
        """When the alarm has taken one last, or was asked to."""
        self.asked = -inf
        self.unheard = 0
        """How often it was summoned since then."""
        self.pause = interval
        """How long after a sample the next one is due."""
        self.longest = 0.0
        """If it is later than that, there was a gap."""
        self.adapt(now, 1)
        self.next_at = now + self.pause

    def adapt(self, now: float, slowdown: int) -> None:
        """Sample as often as befits the recording's age, and less if we use too much of the processor."""
        pause = self.interval * UNEVEN
        full_rate = _FULL_RATE_SAMPLES * self.interval
        age = now - self.recording.started
        while age > full_rate:
            pause *= 2
            full_rate *= 2
        self.pause = pause = pause * slowdown
        self.longest = max(_GAP_INTERVALS * pause, pause + _GAP_SECONDS)


class Sampler:
    """Samples what has been started, until it is stopped.

    Args:
        clock: ``time.monotonic``, which is what the alarm goes by.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.cpu: Final = CpuShare()
        self._clock = clock
        self._sampled: dict[int, Sampled] = {}
        self._turn = 0
        self._is_listening = False

    def __len__(self) -> int:
        return len(self._sampled)

    def start(self, sampled: Sampled) -> bool:
        """Sample from now on; whether by the alarm. From any thread."""
        if not self._is_listening:
            self._is_listening = True
            ALARM.look_on(self._answer)
        self._sampled[id(sampled)] = sampled
        if not _is_main(_place_of(sampled)):
            return False
        ALARM.keeps_rhythm = True
        now = sampled.asked = sampled.alarm_heard = self._clock()
        if is_main_thread():
            sampled.alarm_is_there = ALARM.ring_by(sampled.next_at, now, polite=True, gentle=True) is None
        else:
            sampled.alarm_is_there = ALARM.summon()
        return sampled.alarm_is_there

    def stop(self, sampled: Sampled) -> None:
        """Sample no more; who has just begun to may still put down one. From any thread.

        What is left since the last sample belongs to where that was; or to nothing, if it is long.
        """
        self._sampled.pop(id(sampled), None)
        if not self._sampled:
            ALARM.keeps_rhythm = False
            ALARM.nobody_looks()
        now, recording = self._clock(), sampled.recording
        left = now - recording.latest
        if left > sampled.longest or (left > sampled.pause and recording.latest > recording.started):
            recording.add(now, sampled.longest, None)

    def close(self) -> None:
        """Give back what was borrowed."""
        self._sampled.clear()
        ALARM.keeps_rhythm = False
        self._is_listening = False
        ALARM.look_away(self._answer)

    def forget(self, keep: Iterable[Sampled]) -> None:
        """In a forked child: go on with *keep* only."""
        self._sampled = {id(each): each for each in keep}
        ALARM.keeps_rhythm = False
        for each in self._sampled.values():
            each.alarm_is_there = False  # the child has no timer, and nobody stands by
            each.recording.after_fork()

    # In the main thread, on top of whatever runs there: takes no lock, logs nothing.

    def _answer(self, now: float, frame: FrameType | None) -> tuple[float, BaseException | None]:
        due = inf
        if not self._sampled or frame is None:
            return due, None
        began = time.perf_counter()
        main_thread = get_ident()
        for each in tuple(self._sampled.values()):
            place = _place_of(each)
            if place is None or (place if isinstance(place, int) else place.thread_id) != main_thread:
                continue
            # Also if the introspector has just been before it: from here on it rings, and may have to fall silent.
            each.alarm_heard, each.alarm_is_there, each.unheard = now, True, 0
            if now >= each.next_at - each.pause / 4:
                each.next_at = now + each.pause  # in the rhythm of the alarm, whatever that is late by
                try:
                    # Where the place is more than a thread, another one may be a part of it.
                    others = {} if isinstance(place, int) else current_frames()
                    if self._sample(each, place, now, {**others, main_thread: frame}):
                        each.alarm_count += 1
                except Exception:  # noqa: BLE001 - it would cost the others their samples, and the alarm its next ring
                    count("failed", _SAMPLING)
            due = min(due, each.next_at)
        self.cpu.spend(time.perf_counter() - began)
        return due, None

    # On the introspector's thread.

    def tick(self) -> float | None:
        """Sample what the alarm does not; in how many seconds to come again, None if there is nothing to sample."""
        if not self._sampled:
            return None
        now = self._clock()
        # Whoever of those below takes it for there or not: a limit must not wait behind rings that nobody answers.
        if ALARM.is_unanswered(now, _SILENCE):
            ALARM.fall_silent()
        due = now + 1.0
        mine: list[tuple[Sampled, int | Place]] = []
        for each in tuple(self._sampled.values()):
            place = _place_of(each)
            if place is None:
                continue
            if _is_main(place) and self._alarm_sees(each, now):
                due = min(due, now + _FOLD)
            elif each.next_at <= now:
                mine.append((each, place))
            else:
                due = min(due, each.next_at)
        if mine and can_walk_other_threads():
            self._look_at(mine)
            due = min(due, *(each.next_at for each, _ in mine))
        for each in tuple(self._sampled.values()):
            with fail_open("folding in samples"):
                each.adapt(now, self.cpu.slowdown)
                each.recording.fold()
        self.cpu.account()
        return max(due - self._clock(), 0.0)

    def _alarm_sees(self, each: Sampled, now: float) -> bool:
        if each.alarm_is_there and now - each.alarm_heard <= max(_SILENCE_INTERVALS * each.pause, _SILENCE):
            return True
        if each.alarm_is_there:
            each.alarm_is_there = False
            ALARM.fall_silent()
        elif now - each.asked > min(_SUMMON_FIRST * 2**each.unheard, _SUMMON_AGAIN):
            # Soon again, as the machine may only have kept it waiting; then less and less often.
            self._summon(each, now)
        return False

    def _summon(self, each: Sampled, now: float) -> None:
        # Whether it comes it says itself; until then this thread goes on.
        each.asked = now
        each.unheard = min(each.unheard + 1, 10)
        ALARM.summon()

    def _look_at(self, mine: list[tuple[Sampled, int | Place]]) -> None:
        if len(mine) > MAX_THREADS:
            self._turn = (self._turn + MAX_THREADS) % len(mine)
            mine = [*mine[self._turn :], *mine[: self._turn]][:MAX_THREADS]
        frames = current_frames()
        for each, place in mine:
            now, leaf = self._clock(), each.leaf
            # As planned, so that what the look itself takes does not add up; not at once if that has been missed.
            each.next_at = max(each.next_at + each.pause, now + each.pause / 2)
            with fail_open(_SAMPLING):
                self._sample(each, place, now, frames)
                if each.leaf != leaf and now - each.asked > _SUMMON_SOON and _is_main(place):
                    self._summon(each, now)  # what it has waited for in C is over

    # On either.

    def _sample(self, each: Sampled, place: int | Place, now: float, frames: Mapping[int, FrameType]) -> bool:
        """Take one sample; False if nothing was to be seen."""
        state = RUNNING
        leaf = _NO_LEAF
        stack: RawStack
        if isinstance(place, int):
            frame = frames.get(place)
            if frame is None:
                return False
            waits = bool(working) and is_waiting(frame)
            leaf = _leaf_of(frame)
            # Always the whole stack: that the innermost frames are where they were does not say that the others are. A
            # frame is often made where the one before was, and then a query would be its first caller's for ever.
            stack = raw_stack(frame)
        else:
            seen = place.stack(frames)
            if seen is None:
                return False
            state = AWAITING if seen.task_state == "awaiting" else RUNNING
            stack = [part for each_frame in islice(seen.frames, MAX_FRAMES) for part in _parts(each_frame)]
            waits = state == AWAITING
            # A thread that waits is told by its innermost frame; that of a place may be a greenlet's, in its hub.
        each.leaf = leaf
        stacks: list[RawStack] = [stack]
        if waits and working:
            elsewhere = _work_for(each.key, place)
            if elsewhere:
                stacks, state = [[*inner, *stack][: 2 * MAX_FRAMES] for inner in elsewhere], RUNNING
        each.recording.add(now, each.longest, stacks, state)
        return True


def _is_main(place: int | Place | None) -> bool:
    thread_id = place if place is None or isinstance(place, int) else place.thread_id
    return thread_id == main_thread_id()


def _place_of(sampled: Sampled) -> int | Place | None:
    """Where it is now: a thread's id if that is all. In the alarm's handler, too, so that a fault is counted only."""
    try:
        place = sampled.where()
    except Exception:  # noqa: BLE001 - nobody is to lose more than a sample by it
        count("failed", _SAMPLING)
        return None
    return place.thread_id if type(place) is ThreadPlace else place


def _parts(frame: FrameType) -> tuple[Any, int]:
    return frame.f_code, frame.f_lasti


def _leaf_of(frame: FrameType) -> tuple[int, int, int, int]:
    """What is the same as long as the thread has not gone on: not quite sure, as frames are made where others were."""
    if frame.f_code.co_flags & _SUSPENDABLE:
        return _NO_LEAF
    back = frame.f_back
    return (id(frame), frame.f_lasti, id(back), back.f_lasti if back is not None else 0)


def _work_for(key: Hashable, place: int | Place) -> list[list[Any]]:
    """The stacks of what threads of pools do for *key*."""
    threads = [thread_id for thread_id in threads_of(key) if thread_id != place]
    if not threads or not can_walk_other_threads():
        return []
    frames = current_frames()
    # Whoever has gone on to something else since, or had not begun as the frames were taken, may show another's work.
    still = threads_of(key)
    found: list[list[Any]] = []
    waiting: list[list[Any]] = []
    for thread_id in threads[:MAX_THREADS]:
        frame = frames.get(thread_id)
        stack = [part for each in work_on(frame) for part in _parts(each)] if thread_id in still else []
        if frame is not None and stack:
            (waiting if is_waiting(frame) else found).append(stack)
    if len(threads) > MAX_THREADS:
        count("dropped", "profile: too many threads at work for one request")
    # One that itself waits for another thread has a share in the time only if that is all that there is.
    return found or waiting
