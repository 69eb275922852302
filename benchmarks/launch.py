"""What the launcher takes longer to start a program: every Python process that it starts imports us."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from benchmarks.effort import Effort
from benchmarks.pairing import compare, in_turns
from benchmarks.programs import WITHOUT_US, environment, program
from benchmarks.report import Part, Row

LIMIT: Final = 5.0

_BASE: Final = "without us"
_OURS: Final = "otel_introspect"
_SHOWN: Final = 5


def measure(effort: Effort) -> Part:
    """Launch a program that does nothing, with ours switched on and off, and list what ours imports."""
    part = Part(title="opentelemetry-instrument python -c pass", unit="ms")
    launches = {_BASE: _Launches(WITHOUT_US), f"{_BASE}, again": _Launches(WITHOUT_US), _OURS: _Launches({})}
    for launch in launches.values():
        launch.run()  # compiles and caches what is not yet
        launch.wall.clear()
    cpu = in_turns({name: launch.run for name, launch in launches.items()}, effort.launches)
    part.add("CPU", compare(cpu, _BASE), _BASE, ours=_OURS, limit=LIMIT)
    part.add("elapsed", compare({name: launch.wall for name, launch in launches.items()}, _BASE), _BASE)

    ours = _imported_by_us(effort.listings)
    total = sum(ours.values())
    part.rows.append(
        Row(case="-X importtime", variant="what only we import", median=total, limit=LIMIT, limited="median")
    )
    longest = sorted(ours, key=lambda name: -ours[name])[:_SHOWN]
    part.notes.append(f"{len(ours)} modules; longest: {', '.join(f'{name} {ours[name]:.2f}' for name in longest)}.")
    part.notes.append(
        "-X importtime is more exact than whole launches, whose noise is as large as the limit; it lists all but the"
        " instrumentor modules, which are imported by importlib."
    )
    return part


@dataclass
class _Launches:
    """Launches of one kind; ``wall`` has a figure for each beside the CPU time that is returned."""

    variables: dict[str, str]
    wall: list[float] = field(default_factory=list)

    def run(self) -> float:
        began = time.perf_counter()
        process = subprocess.Popen(_command("-c", "pass"), env=environment(**self.variables))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall.append((time.perf_counter() - began) * 1e3)
        if process.returncode:
            msg = f"the launched program ended with {process.returncode}"
            raise RuntimeError(msg)
        return (usage.ru_utime + usage.ru_stime) * 1e3


def _command(*arguments: str) -> list[str]:
    return [program("opentelemetry-instrument"), sys.executable, *arguments]


def _imported_by_us(listings: int) -> dict[str, float]:
    """Modules that are loaded only because of us, and what each takes, in milliseconds."""
    everybody_else = _imported(WITHOUT_US)
    runs = [_imported({}) for _ in range(listings)]
    ours = {name: statistics.median(run[name] for run in runs) for name in runs[0] if name not in everybody_else}
    if "otel_introspect.introspection" not in ours:
        msg = "the launcher did not run the instrumentor"
        raise RuntimeError(msg)
    return ours


def _imported(variables: dict[str, str]) -> dict[str, float]:
    lines = subprocess.run(
        _command("-X", "importtime", "-c", "pass"),
        env=environment(**variables),
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    ).stderr.splitlines()
    found: dict[str, float] = {}
    for line in lines:
        head, _, figures = line.partition(":")
        own, _, rest = figures.partition("|")
        if head == "import time" and own.strip().isdigit():
            found[rest.partition("|")[2].strip()] = int(own) / 1e3
    return found
