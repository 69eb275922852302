"""How late an interruption comes in the main thread, by what is interrupted."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.sdk.trace import TracerProvider

from benchmarks.effort import Effort
from benchmarks.limits import INTERRUPTINGCOW, OURS, Expired, Run, give_back, missing, runs
from benchmarks.pairing import compare, in_turns
from benchmarks.report import Part, Row

LIMIT: Final = 2.0

_IN_A_SPAN: Final = f"{OURS}, in a span"
# Longer than a process takes to start, which is part of what is interrupted there.
_SECONDS: Final = 0.05
_FOREVER: Final = 20.0
_PATIENCE: Final = 60.0


def measure(effort: Effort) -> Part:
    """Have a process of its own interrupt itself: this one has threads, and a regular expression can't be ended."""
    part = Part(title="timeout, how late the interruption comes", unit="ms")
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.timeout_lateness", str(effort.interruptions)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PATIENCE + 6 * 3 * (effort.interruptions + 1) * 3 * _SECONDS,
    )
    found = json.loads(process.stdout)
    for case, figures in found["late"].items():
        base = INTERRUPTINGCOW if INTERRUPTINGCOW in figures else OURS
        part.add(case, compare(figures, base), base, ours=OURS, limit=LIMIT, limited="median", with_worst=True)
    part.rows.append(Row(case="the first of a process", variant=OURS, median=found["first"]))
    part.notes += [note for note in missing() if note.startswith(INTERRUPTINGCOW)]
    part.notes.append(
        f"Until the block has been left, after {_SECONDS * 1e3:g} ms; {effort.interruptions} times each, in turns."
        " 'In a span': a recording one, on which ours says what it has interrupted."
    )
    return part


def _interrupt(rounds: int) -> None:
    """Be such a process; prints how late it was."""
    ways = {name: run for name, run in runs().items() if name in (OURS, INTERRUPTINGCOW)}
    ways[_IN_A_SPAN] = _in_a_span(ways[OURS])
    first = _late(ways[OURS], _sleep)
    late: dict[str, dict[str, list[float]]] = {}
    for case, prepared in _WORK.items():
        with prepared() as work:
            turns = {name: _turn(run, work) for name, run in ways.items()}
            in_turns(turns, 1)
            late[case] = in_turns(turns, rounds)
    print(json.dumps({"first": first, "late": late}), flush=True)


def _turn(run: Run, work: Callable[[], object]) -> Callable[[], float]:
    return lambda: _late(run, work)


def _late(run: Run, work: Callable[[], object]) -> float:
    due = time.perf_counter() + _SECONDS
    try:
        run(_SECONDS, work)
    except Expired:
        late = (time.perf_counter() - due) * 1e3
    else:
        msg = "what was to be interrupted has come to its end"
        raise RuntimeError(msg)
    finally:
        give_back()
    return late


def _in_a_span(run: Run) -> Run:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer(__name__)

    def in_a_span(seconds: float, work: Callable[[], object]) -> object:
        with tracer.start_as_current_span("GET /", record_exception=False, set_status_on_exception=False):
            return run(seconds, work)

    return in_a_span


# What is interrupted. None of it comes to its end within the seconds that the process may take.


@contextmanager
def _regular_expression() -> Iterator[Callable[[], object]]:
    pattern, text = re.compile(r"^(a+)+$"), "a" * 32 + "!"
    yield lambda: pattern.match(text)


@contextmanager
def _busy_loop() -> Iterator[Callable[[], object]]:
    def work() -> None:
        until = time.monotonic() + _FOREVER
        while time.monotonic() < until:
            pass

    yield work


def _sleep() -> None:
    time.sleep(_FOREVER)


@contextmanager
def _sleeping() -> Iterator[Callable[[], object]]:
    yield _sleep


@contextmanager
def _locked() -> Iterator[Callable[[], object]]:
    lock = threading.Lock()
    with lock:
        yield lock.acquire


@contextmanager
def _receiving() -> Iterator[Callable[[], object]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield lambda: ours.recv(1)


@contextmanager
def _subprocess() -> Iterator[Callable[[], object]]:
    yield lambda: subprocess.run(["sleep", str(_FOREVER)], check=True)


_WORK: Final = {
    "a regular expression": _regular_expression,
    "a busy loop": _busy_loop,
    "time.sleep": _sleeping,
    "a lock's acquire": _locked,
    "a socket's recv": _receiving,
    "subprocess.run": _subprocess,
}


if __name__ == "__main__":
    _interrupt(int(sys.argv[1]))
