"""A script that knows nothing of tracing, with one block of it profiled."""

from __future__ import annotations

import sys
import time

from otel_introspect import profile


def collect(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def send(seconds):
    time.sleep(seconds)


with profile(name="nightly") as taken:
    collect(0.2)
    send(0.1)
sys.stdout.write(f"{taken.id}\n{taken.text()}\n")
