"""What a block costs that has a limit and ends in time, in the main thread and in a task."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.effort import Effort
from benchmarks.limits import OURS, STOPIT_SIGNAL, Block, blocks, decorators, give_back, missing
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.report import Part
from otel_introspect import timeout
from otel_introspect.engine.alarm import ALARM

LIMIT: Final = 1.5

_EMPTY: Final = "nothing"
_BARE: Final = "setitimer, twice"
_OUTER_SECONDS: Final = 10
_INNER_SECONDS: Final = 5
_SECONDS_A_TURN: Final = 0.001
_FIRSTS_A_TURN: Final = 20

Spend = Callable[[int], float]
"""Do it so many times; says how many seconds that took."""


def measure(effort: Effort) -> Part:
    """Enter and leave blocks."""
    part = Part(title="timeout, a block that ends in time", unit="us CPU")
    rounds = effort.block_rounds
    try:
        _alone(part, rounds)
        _nested(part, rounds)
        _decorated(part, rounds)
        _in_task(part, rounds)
        _first(part, rounds)
    finally:
        give_back()
    part.notes += missing()
    part.notes.append("With asyncio imported, as in any service. 'more' and 'ratio' are beside ours.")
    part.notes.append(f"'{_BARE}' is the least that setting a timer for each block could cost: no handler, no nesting.")
    part.notes.append("The first in a second takes SIGALRM, which we give back when nobody has wanted it for so long.")
    return part


def _alone(part: Part, rounds: int) -> None:
    spends = {name: _blocks(make) for name, make in blocks().items()}
    figures = in_turns(_turns({**spends, _EMPTY: _nothing, _BARE: _bare}), rounds)
    part.add("a block", compare(figures, OURS), OURS, ours=OURS, limit=LIMIT, limited="median")


def _nested(part: Part, rounds: int) -> None:
    # Of stopit's ways that by POSIX signal forgets the outer block when it ends an inner one.
    spends = {name: _inner_blocks(make) for name, make in blocks().items() if name != STOPIT_SIGNAL}
    figures = in_turns(_turns(spends), rounds)
    part.add("one in another", compare(figures, OURS), OURS, ours=OURS, limit=LIMIT, limited="median")


def _decorated(part: Part, rounds: int) -> None:
    spends = {name: _calls(make(_OUTER_SECONDS)(_function)) for name, make in decorators().items()}
    figures = in_turns(_turns({**spends, "the function alone": _calls(_function)}), rounds)
    part.add("a decorated function", compare(figures, OURS), OURS)


def _in_task(part: Part, rounds: int) -> None:
    makes: dict[str, Callable[[int], Any]] = {OURS: timeout, f"{OURS}, again": timeout}
    if hasattr(asyncio, "timeout"):
        makes["asyncio.timeout"] = asyncio.timeout
    else:
        part.notes.append("asyncio.timeout is not there before Python 3.11.")
    loop = asyncio.new_event_loop()
    try:
        turns = _turns({name: _blocks_in_task(make, loop) for name, make in makes.items()})
        figures = in_turns(turns, rounds)
    finally:
        loop.close()
    part.add("async with, in a task", compare(figures, OURS), OURS)


def _first(part: Part, rounds: int) -> None:
    turns = {OURS: _firsts, f"{OURS}, again": _firsts}
    part.add("the first in a second", compare(in_turns(turns, rounds // 4), OURS), OURS)


def _turns(spends: dict[str, Spend]) -> dict[str, Measure]:
    return {name: _turn(spend) for name, spend in spends.items()}


def _turn(spend: Spend) -> Measure:
    def turn(count: int) -> float:
        give_back()  # nobody finds what another one has left
        spend(1)
        return spend(count)

    turn(20)
    count = max(5, min(5_000, int(_SECONDS_A_TURN / (turn(20) / 20))))
    return lambda: turn(count) / count * 1e6


def _nothing(count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        pass
    return time.process_time() - began


def _blocks(make: Block) -> Spend:
    def spend(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            with make(_OUTER_SECONDS):
                pass
        return time.process_time() - began

    return spend


def _inner_blocks(make: Block) -> Spend:
    def spend(count: int) -> float:
        with make(_OUTER_SECONDS):
            began = time.process_time()
            for _ in range(count):
                with make(_INNER_SECONDS):
                    pass
            return time.process_time() - began

    return spend


def _bare(count: int) -> float:
    setitimer, timer = signal.setitimer, signal.ITIMER_REAL
    began = time.process_time()
    for _ in range(count):
        setitimer(timer, _OUTER_SECONDS)
        setitimer(timer, 0)
    return time.process_time() - began


def _calls(function: Callable[[], None]) -> Spend:
    def spend(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            function()
        return time.process_time() - began

    return spend


def _function() -> None:
    """Return at once."""


def _blocks_in_task(make: Callable[[int], Any], loop: asyncio.AbstractEventLoop) -> Spend:
    async def spend(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            async with make(_OUTER_SECONDS):
                pass
        return time.process_time() - began

    return lambda count: loop.run_until_complete(spend(count))


def _firsts() -> float:
    spent = 0.0
    for _ in range(_FIRSTS_A_TURN):
        ALARM.release()
        began = time.perf_counter()
        with timeout(_OUTER_SECONDS):
            pass
        spent += time.perf_counter() - began
    give_back()
    return spent / _FIRSTS_A_TURN * 1e6
