"""The demo as one call, and what can keep it from starting."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from otel_introspect.demo import requirements
from otel_introspect.demo.screen import Screen

DEFAULT_OUTPUT: Final = Path("demo-traces.jsonl")
_INTERRUPTED: Final = 130


def run(
    output: Path = DEFAULT_OUTPUT,
    out: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Open the shop, visit it, show what was slow and why.

    Args:
        output: Where the traces go as OTLP JSON lines.
        out: Where to print; standard output if there is none.
        environ: The environment of the shop; the process's own if there is none.

    Returns:
        The exit status: 0 if every slow view's trace arrived with its evidence.
    """
    screen = Screen(sys.stdout if out is None else out)
    if not requirements.possible():
        screen.say("The demo runs gunicorn, which needs a POSIX system.", "error")
        return 1
    lacking = requirements.missing()
    if lacking:
        screen.say(f"The demo needs {', '.join(lacking)}. Install what it runs on:", "error")
        screen.say(f"    {requirements.INSTALL}")
        return 1

    from otel_introspect.demo.session import Session  # needs what was just looked for

    try:
        return Session(screen, output.absolute(), os.environ if environ is None else environ).run()
    except KeyboardInterrupt:
        screen.say("Interrupted; the shop is closed.", "note")
        return _INTERRUPTED
    finally:
        screen.close()
