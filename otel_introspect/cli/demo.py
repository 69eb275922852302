"""``otel-introspect demo``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

import click

from otel_introspect.demo import driver

_TERMINATED: Final = 128 + signal.SIGTERM


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=driver.DEFAULT_OUTPUT,
    show_default=True,
    help="Where the traces go as OTLP JSON lines.",
)
def demo(output: Path) -> None:
    """Run a small Django shop that is slow in ten ways and see each of them explain itself.

    It takes half a minute, talks to nobody but this machine and ends by itself. If OTEL_EXPORTER_OTLP_ENDPOINT is set,
    or something listens on localhost:4318, the traces go there too. Variables that begin with OTEL_PYTHON_INTROSPECT_
    are in force as always; the demo's own default for the threshold is 500 ms.
    """
    # Whoever ends us with SIGTERM wants the shop closed as well, and its directory gone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    raise SystemExit(driver.run(output))
