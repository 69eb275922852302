"""What a Django request costs more if it has a limit, under WSGI and in process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from benchmarks.effort import Effort
from benchmarks.limits import INTERRUPTINGCOW, blocks, give_back, missing
from benchmarks.pairing import Measure, compare, in_turns
from benchmarks.programs import program
from benchmarks.report import Part
from benchmarks.request import requests_in_process
from benchmarks.site.variants import OURS, variants

LIMIT: Final = 2.0

_BASE: Final = "without a limit"
_LIMITED: Final = "OTEL_PYTHON_INTROSPECT_TIMEOUT"
_SECONDS: Final = 10
_REQUESTS_A_TURN: Final = 20
_WARM_UP: Final = 300
_PATIENCE: Final = 60.0
_SECONDS_A_ROUND: Final = 0.2


def measure(effort: Effort) -> Part:
    """Have processes serve themselves, each of them with a limit and without one in turns."""
    part = Part(title="Django request with a limit, in process", unit="us CPU")
    figures: dict[str, list[float]] = {}
    for _ in range(effort.generations):
        process = subprocess.run(
            [
                program("opentelemetry-instrument"),
                *(sys.executable, "-W", "ignore", "-m", "benchmarks.timeout_request"),
                str(effort.limited_request_rounds),
            ],
            env=variants()[OURS],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE + effort.limited_request_rounds * _SECONDS_A_ROUND,
        )
        for name, of_variant in json.loads(process.stdout).items():
            figures.setdefault(name, []).extend(of_variant)
    part.add("trivial view", compare(figures, _BASE), _BASE, ours=_LIMITED, limit=LIMIT)
    part.notes += [note for note in missing() if note.startswith(INTERRUPTINGCOW)]
    part.notes.append(
        f"{effort.generations} process(es), whose setting is changed between turns, as two processes of one program"
        " differ by more than the limit."
    )
    part.notes.append("The watchdog is on, spans are recorded. 'Around it': around the WSGI application as a whole.")
    return part


def _serve(rounds: int) -> None:
    """Be such a process; prints the CPU time of a request in each turn."""
    answer = requests_in_process()
    turns: dict[str, Measure] = {
        _BASE: _turn(answer, 0),
        f"{_BASE}, again": _turn(answer, 0),
        _LIMITED: _turn(answer, _SECONDS * 1000),
        **{
            f"{name} around it": _turn(answer, 0, make)
            for name, make in blocks().items()
            if name in (OURS, INTERRUPTINGCOW)
        },
    }
    in_turns(turns, _WARM_UP // _REQUESTS_A_TURN)
    print(json.dumps(in_turns(turns, rounds)), flush=True)


def _turn(
    answer: Callable[[int], None], limit_ms: int, make: Callable[[int], AbstractContextManager[Any]] | None = None
) -> Measure:
    from otel_introspect.config import TimeoutConfig
    from otel_introspect.introspection import active

    introspection = active()
    if introspection is None:
        raise AssertionError
    config = introspection.config._replace(timeout=TimeoutConfig(timeout=limit_ms))

    def around(count: int) -> None:
        for _ in range(count):
            if make is None:
                answer(1)
            else:
                with make(_SECONDS):
                    answer(1)

    def turn() -> float:
        give_back()
        introspection.config = config  # type: ignore[misc] # nobody else changes it while it runs
        around(1)  # takes SIGALRM
        began = time.process_time()
        around(_REQUESTS_A_TURN)
        return (time.process_time() - began) / _REQUESTS_A_TURN * 1e6

    return turn


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
