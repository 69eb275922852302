"""Kills servers' workers in the midst of requests, and looks whether each of these is sent, once and right.

``python tests/realtime/kills.py --rounds 50 gthread-100`` does so again and again, and says what was lost or came
twice; without a name it goes through all kinds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from otlp_receiver import Receiver
from services import ERROR, GUNICORN, SERVER, THRESHOLD_MS, Services

from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.recorder_reading import UnreadableRecord, is_alive, read_record

PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Kind:
    """A server, how many requests it is to have at once, and by which path."""

    command: tuple
    requests: int
    path: str = "/slow?seconds=60"
    restarts: bool = True

    @property
    def module(self):
        return self.command[0]


def gunicorn(*options):
    return (*GUNICORN, *options, "wsgi")


def uvicorn(*options):
    return ("uvicorn", "--port", "{port}", "--timeout-graceful-shutdown", "2", *options, "asgi:application")


KINDS = {
    "sync-1": Kind(gunicorn("-w", "1"), 1),
    "sync-8": Kind(gunicorn("-w", "8"), 8),
    "gthread-1": Kind(gunicorn("-w", "2", "--threads", "8"), 1),
    "gthread-8": Kind(gunicorn("-w", "2", "--threads", "8"), 8),
    "gthread-100": Kind(gunicorn("-w", "2", "--threads", "100"), 100),
    "uvicorn-1": Kind(uvicorn(), 1, "/async/nested?seconds=60", restarts=False),
    "uvicorn-8": Kind(uvicorn(), 8, "/async/nested?seconds=60", restarts=False),
    "uvicorn-100": Kind(uvicorn(), 100, "/async/nested?seconds=60", restarts=False),
    "uvicorn-workers-1": Kind(uvicorn("--workers", "2"), 1, "/async/nested?seconds=60"),
    "uvicorn-workers-8": Kind(uvicorn("--workers", "2"), 8, "/async/nested?seconds=60"),
    "uvicorn-workers-100": Kind(uvicorn("--workers", "2"), 100, "/async/nested?seconds=60"),
}


class Requests:
    """Requests that are sent and not waited for; each belongs to a trace that somebody else has begun."""

    def __init__(self, port, path, count):
        self.parents = {}
        self._open = contextlib.ExitStack()
        for _ in range(count):
            trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
            self.parents[trace_id] = parent_id
            connection = self._open.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\ntraceparent: 00-{trace_id}-{parent_id}-01\r\n\r\n".encode()
            )

    def close(self):
        self._open.close()


def records_in(folder):
    """What the files of living processes say."""
    records = []
    for path in RecorderDirectory(str(folder)).files():
        with contextlib.suppress(OSError, UnreadableRecord):
            if is_alive(path):
                records.append(read_record(path, alive=True))
    return records


def open_spans(folder):
    """The span and its process for each trace that is open."""
    return {format(span.trace_id, "032x"): (span, record.pid) for record in records_in(folder) for span in record.spans}


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@dataclasses.dataclass
class Round:
    """What became of the requests of one round."""

    expected: dict
    before: dict
    found: dict

    @property
    def lost(self):
        return [each for each in self.expected if not self.found[each]]

    @property
    def duplicated(self):
        return [each for each in self.expected if len(self.found[each]) > 1]

    def complaints(self, *, with_stack=True):
        """What is not as it should be."""
        said = [f"{each} is lost" for each in self.lost] + [f"{each} came twice" for each in self.duplicated]
        for trace_id, parent_id in self.expected.items():
            for span in self.found[trace_id]:
                known = self.before[trace_id][0]
                if span.parent_id != parent_id:
                    said.append(f"{trace_id} has the parent {span.parent_id}")
                if span.span_id != format(known.span_id, "016x") or abs(span.start - known.start / 1e9) > 1e-3:
                    said.append(f"{trace_id} is another span")
                if span.status != ERROR or span.attributes.get("otel_introspect.recovered") is not True:
                    said.append(f"{trace_id} does not say that it is recovered")
                if not span.start <= span.end <= time.time():
                    said.append(f"{trace_id} ends at no time that can be")
                if with_stack and not any("sleep" in each.stack for each in span.snapshots):
                    said.append(f"{trace_id} has no stack")
        return said


def one_round(service, receiver, folder, path, count, *, kill, with_stack=True):
    """Have *count* requests run, *kill* the processes that they run in, and wait for what comes of it."""
    requests = Requests(service.port, path, count)
    try:
        wait_until(lambda: requests.parents.keys() <= open_spans(folder).keys())
        if with_stack:
            # What the process may emit in five seconds is bounded: then it is written down only.
            wait_until(
                lambda: all(
                    span.events or span.stack
                    for trace_id, (span, _) in open_spans(folder).items()
                    if trace_id in requests.parents
                )
            )
        before = open_spans(folder)
        missing = requests.parents.keys() - before.keys()
        assert not missing, f"{len(missing)} of the requests did not run:\n{service.log[-2000:]}"
        kill({before[trace_id][1] for trace_id in requests.parents})
    finally:
        requests.close()
    return requests.parents, before


def outcome(receiver, names, expected, before, *, settle=0.7):
    """Wait until each has come; a little longer, for a second one."""

    def found():
        spans = {trace_id: [] for trace_id in expected}
        for name in names:
            for span in receiver.spans(name):
                if span.trace_id in spans and span.kind == SERVER:
                    spans[span.trace_id].append(span)
        return spans

    wait_until(lambda: all(found().values()), 45)
    time.sleep(settle)
    return Round(expected, before, found())


def kill_all(pids, number=signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def start(services, kind, folder, **environ):
    environ = {"OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS": "none", **environ}
    return services.start(
        kind.module, command=list(kind.command), OTEL_PYTHON_INTROSPECT_RECORDER_DIR=str(folder), **environ
    )


def rounds_of(services, receiver, kind, folder, rounds, **environ):
    """So many rounds with one server, or with as many as it takes."""
    service = start(services, kind, folder, **environ)
    names = [service.name]
    try:
        for _ in range(rounds):
            expected, before = one_round(service, receiver, folder, kind.path, kind.requests, kill=kill_all)
            if not kind.restarts:
                service.stop()
                service = start(services, kind, folder, **environ)
                names.append(service.name)
            yield outcome(receiver, names, expected, before)
            if kind.restarts:
                wait_until(lambda port=service: _answers(port))
    finally:
        service.stop()


def _answers(service):
    with contextlib.suppress(Exception):
        return service.get("/fast", timeout=5).status == 200
    return False


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("kinds", nargs="*", default=list(KINDS))
    arguments.add_argument("--rounds", type=int, default=50)
    given = arguments.parse_args()
    receiver = Receiver()
    bad = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            services = Services(receiver, Path(folder))
            for name in given.kinds:
                counts, began = Counter(), time.monotonic()
                for done in rounds_of(services, receiver, KINDS[name], Path(folder) / f"flight-{name}", given.rounds):
                    counts["requests"] += len(done.expected)
                    counts["lost"] += len(done.lost)
                    counts["duplicated"] += len(done.duplicated)
                    complaints = done.complaints()
                    counts["complaints"] += len(complaints)
                    for each in complaints[:5]:
                        sys.stdout.write(f"  {each}\n")
                left = list((Path(folder) / f"flight-{name}").iterdir())
                bad += counts["complaints"]
                sys.stdout.write(
                    f"{name}: {given.rounds} rounds, {counts['requests']} requests, {counts['lost']} lost,"
                    f" {counts['duplicated']} duplicated, {counts['complaints']} complaints, {len(left)} files left,"
                    f" {time.monotonic() - began:.0f} s\n"
                )
                sys.stdout.flush()
            services.stop()
    finally:
        receiver.close()
    return bool(bad)


if __name__ == "__main__":
    assert THRESHOLD_MS < 1000
    sys.exit(main())
