"""Flight recorders for tests, and what is in their files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.recorder_reading import parse_record, read_record
from otel_introspect.engine.stacks import capture, outwards

PATIENCE = 60
RESOURCE = {"service.name": "shop", "service.instance.id": "one"}
START = 1_700_000_000_000_000_000


def recorder_in(folder, resource=RESOURCE):
    return FlightRecorder(RecorderDirectory(str(folder)), lambda: resource)


def begin(recorder, key, *, name="GET /", method="GET", path="/", trace_id=None, parent=0, flags=layout.STABLE_NAMES):
    """Have a span written down whose numbers all follow from its id."""
    recorder.begin(
        key,
        key << 64 | key if trace_id is None else trace_id,
        parent,
        START + key,
        threading.get_ident(),
        1,
        flags,
        f"{name}\0{method}\0{path}",
    )


def here():
    """A capture of the caller."""
    return capture(outwards(sys._getframe(1)))


def spans_in(recorder):
    return {span.span_id: span for span in read_record(recorder.path, alive=True).spans}


def parsed(data):
    """What a file with this content says."""
    return parse_record("x.flight", bytes(data), bytes(data))


def span_in(recorder, key):
    return spans_in(recorder)[key]


def whole_file(folder):
    """The content of a file with three open spans, one of them with everything that there is."""
    recorder = recorder_in(folder)
    recorder.open()
    for key in (1, 2, 3):
        begin(recorder, key, name=f"GET /{key}", path=f"/{key}")
    recorder.note(2, {"name": "GET /<int>", "attributes": {"http.route": "/<int>"}})
    recorder.saw(2, here(), START, thread_id=4, task_state="awaiting")
    recorder.add_event(2, "small", {"text": "a", "number": 1, "list": ["a", "b"]}, START)
    recorder.add_event(2, "large", {"text": "b" * 9000}, START + 1)
    data = recorder.path.read_bytes()
    recorder.close()
    return data


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def in_child(work):
    """Run *work* in a forked child, which then ends on the spot; returns what it says, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, str(work()).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(write, f"raised {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


class Script:
    """A Python process of its own, which is killed at the latest when the test is over."""

    def __init__(self, code, *arguments, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            **options,
        )

    def line(self):
        """The next that it says."""
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def finish(self):
        """Let it end; returns its status and all that it says."""
        out, errors = self.process.communicate("\n", timeout=PATIENCE)
        return self.process.returncode, out, errors

    def close(self):
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
