"""Run the benchmarks and print what they find.

The exit status says whether all of them could be run, not whether the limits hold: a busy machine must not break CI.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.report import Part

_BENCHMARKS: Final = (
    "entry_span",
    "child_span",
    "surviving_evidence",
    "local_variables",
    "idle_process",
    "launch",
    "server",
    "request",
    "profiled_request",
    "timeout_block",
    "timeout_lateness",
    "timeout_leaks",
    "timeout_request",
    "wire_bytes",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, rougher figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", action="append", choices=_BENCHMARKS, help="just this one; may be given again")
    options = parser.parse_args(arguments)

    # Whatever the shell has set up for OpenTelemetry would be measured with it.
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    # Programs that we launch must find compiled modules, as installed ones do: compiling costs more than all the rest.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

    print(_machine(), end="\n\n", flush=True)
    effort = QUICK if options.quick else FULL
    parts: list[Part] = []
    failed: list[str] = []
    for name in options.only or _BENCHMARKS:
        part = _run(name, effort)
        if part is None:
            failed.append(name)
        else:
            parts.append(part)
    missed = [f"{part.title}: {row.case}" for part in parts for row in part.rows if row.holds is False]
    print(f"Limits missed: {'; '.join(missed) or 'none'}.")
    if options.json:
        found = {"machine": _machine(), "parts": [part.as_data() for part in parts], "failed": failed}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _run(name: str, effort: Effort) -> Part | None:
    began = time.monotonic()
    try:
        part: Part = importlib.import_module(f"benchmarks.{name}").measure(effort)
    except Exception:  # noqa: BLE001 - the others are still worth running
        print(f"{name} could not be run:\n", file=sys.stderr, flush=True)
        traceback.print_exc()
        return None
    part.notes.append(f"Took {time.monotonic() - began:.0f} s.")
    print(part.as_text(), flush=True)
    return part


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"


if __name__ == "__main__":
    sys.exit(main())
