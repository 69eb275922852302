"""What an interruption breaks: locks that stay locked, and exceptions that miss the ``try`` around a loop."""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from benchmarks.effort import Effort
from benchmarks.limits import OURS, Expired, Run, give_back, missing, runs
from benchmarks.report import Part, Row

# Short, and never the same: each instruction is to be hit now and then.
_SHORTEST: Final = 0.000_3
_LONGEST: Final = 0.001
# A loop must have begun by then.
_LOOP_SECONDS: Final = 0.005
# If the interruption does not come.
_ENOUGH: Final = 2.0
_PATIENCE: Final = 60.0
_SECONDS_EACH: Final = 0.02
_INTERRUPTED: Final = "interrupted"
_LOCKED: Final = "locked"
_MISSED: Final = "missed"
_NEVER: Final = "never interrupted"
_KNOWN: Final = (_INTERRUPTED, _LOCKED, _MISSED, _NEVER)
_ATTEMPTS: Final = (
    ("a queue left locked", _LOCKED),
    ("missed by the try around `while not flag: pass`", _MISSED),
    ("missed by the try around `while True: pass`", _MISSED),
)


def measure(effort: Effort) -> Part:
    """Have a process for each peer interrupt itself, as nobody knows what will be broken there."""
    part = Part(title="timeout, what an interruption breaks", unit="times")
    times = (effort.queue_interruptions, effort.loop_interruptions, effort.loop_interruptions)
    found = {name: _counted(name, *times) for name in runs()}
    for index, (what, bad) in enumerate(_ATTEMPTS):
        for name, counters in found.items():
            part.rows.append(_row(f"{what}, of {times[index]:,}", name, counters[index][bad]))
    for name, counters in found.items():
        part.rows.append(_row(f"never interrupted, of {sum(times):,}", name, sum(each[_NEVER] for each in counters)))
    for name, counters in found.items():
        for (what, _), counter, of in zip(_ATTEMPTS, counters, times, strict=True):
            part.notes += [
                f"{name}, {what}: {each} {much:,} times of {of:,}."
                for each, much in counter.items()
                if each not in _KNOWN
            ]
    part.notes += missing()
    part.notes.append("One thread puts into a queue.Queue and gets from it; or is in the loop, written in one line.")
    part.notes.append("Which loops can be missed differs between Pythons: none in 3.10.")
    part.notes.append("stopit by POSIX signal takes whole seconds only, and is not tried.")
    return part


def _row(case: str, name: str, count: int) -> Row:
    return Row(case=case, variant=name, median=count, limit=0 if name == OURS else None, limited="median")


def _counted(name: str, *times: int) -> list[Counter[str]]:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.timeout_leaks", name, *map(str, times)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PATIENCE + sum(times) * _SECONDS_EACH,
    )
    return [Counter(outcomes) for outcomes in json.loads(process.stdout)]


def _interrupt(name: str, *times: int) -> None:
    """Be such a process; prints how often what happened."""
    run = runs()[name]
    chance = random.Random(0)
    found = []
    for attempt, much in zip((_in_queue, _in_waiting, _in_endless), times, strict=True):
        outcomes: Counter[str] = Counter()
        for _ in range(much):
            seconds = chance.uniform(_SHORTEST, _LONGEST) if attempt is _in_queue else _LOOP_SECONDS
            outcomes.update(_settled(attempt, run, seconds))
        found.append(outcomes)
    give_back()
    print(json.dumps(found), flush=True)


def _settled(attempt: Callable[[Run, float], list[str]], run: Run, seconds: float) -> list[str]:
    outcomes = []
    try:
        outcomes += attempt(run, seconds)
        # What is still on its way comes at a call.
        _nothing()
        _nothing()
    except Exception as error:  # noqa: BLE001 - whatever it is, it came where nobody expected it
        outcomes.append(f"{type(error).__name__} after the block")
    return outcomes


def _in_queue(run: Run, seconds: float) -> list[str]:
    waiting: queue.Queue[int] = queue.Queue()
    outcome = _NEVER
    try:
        run(seconds, lambda: _put_and_get(waiting))
    except Expired:
        outcome = _INTERRUPTED
    return [outcome, *([_LOCKED] if waiting.mutex.locked() else [])]


def _put_and_get(waiting: queue.Queue[int]) -> None:
    until = time.monotonic() + _ENOUGH
    while time.monotonic() < until:
        waiting.put(1)
        waiting.get()


def _in_waiting(run: Run, seconds: float) -> list[str]:
    return _in_loop(run, seconds, lambda: _wait_for([]))


def _in_endless(run: Run, seconds: float) -> list[str]:
    return _in_loop(run, seconds, _never_end)


def _in_loop(run: Run, seconds: float, loop: Callable[[], bool]) -> list[str]:
    try:
        was_caught = run(seconds, loop)
    except Expired:
        return [_INTERRUPTED, _MISSED]
    return [_INTERRUPTED if was_caught else _NEVER]


def _wait_for(flag: list[object]) -> bool:
    try:
        while not flag:
            pass
    except Expired:
        return True
    return False


def _never_end() -> bool:
    try:
        # In a line of its own `pass` would be an instruction, and the jump would not be the loop's first.
        while True: pass  # noqa: E701 # fmt: skip
    except Expired:
        return True


def _nothing() -> None:
    pass


if __name__ == "__main__":
    _interrupt(sys.argv[1], *map(int, sys.argv[2:]))
