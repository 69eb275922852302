"""A Celery application whose tasks can be profiled."""

from __future__ import annotations

import os
import time

from celery import Celery

from otel_introspect import profile

app = Celery("jobs", broker=os.environ["JOBS_REDIS"], backend=os.environ["JOBS_REDIS"])
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)


def build(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return os.getpid()


@app.task
@profile
def report(seconds, *, fail=False):
    """Build a report."""
    made_by = build(seconds)
    if fail:
        raise LookupError("no such report")
    return made_by


@app.task
def plain(seconds):
    """Build it without asking for a profile."""
    return build(seconds)
