"""Real servers with the project, under ``opentelemetry-instrument``, each in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "project"
BIN = Path(sys.executable).parent
THRESHOLD_MS = 300
SERVER = 2  # SPAN_KIND_SERVER
ERROR = 2  # STATUS_CODE_ERROR

GUNICORN = ["gunicorn", "-b", "127.0.0.1:{port}", "--graceful-timeout", "2"]
COMMANDS = {
    "sync": [*GUNICORN, "-w", "2", "wsgi"],
    "single": [*GUNICORN, "-w", "1", "wsgi"],
    "preload": [*GUNICORN, "-w", "2", "--preload", "wsgi"],
    "gthread": [*GUNICORN, "-w", "1", "--threads", "8", "wsgi"],
    "gevent": [*GUNICORN, "-w", "1", "-k", "gevent", "wsgi"],
    "uvicorn": ["uvicorn", "--port", "{port}", "--timeout-graceful-shutdown", "2", "asgi:application"],
    "uvicorn-instrumented": [
        "uvicorn",
        "--port",
        "{port}",
        "--timeout-graceful-shutdown",
        "2",
        "asgi_instrumented:application",
    ],
    "runserver": ["python", "manage.py", "runserver", "--noreload", "{port}"],
    "runserver-reloading": ["python", "manage.py", "runserver", "{port}"],
}
NEEDS = {"gevent": "gevent", "uvicorn": "uvicorn", "uvicorn-instrumented": "uvicorn"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def gunicorn_options():
    """No control socket, where gunicorn has one: all that run at once would share it."""
    from gunicorn.config import KNOWN_SETTINGS

    known = {each.name for each in KNOWN_SETTINGS}
    return ["--no-control-socket"] if "control_socket_disable" in known else []


def environment(**more):
    """Our own without what would change a launcher's mind, and *more*; a value of None takes one out."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "DJANGO_", "GUNICORN_")) and not name.lower().endswith("_proxy")
    }
    kept |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "settings",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": str(THRESHOLD_MS),
        "OTEL_PYTHON_INTROSPECT_WATCHDOG_CHECKPOINT": "none",  # they have tests of their own
        "OTEL_PYTHON_INTROSPECT_RECORDER_DIR": "none",  # or one service would send what another one left
    }
    kept |= {name: str(value) for name, value in more.items() if value is not None}
    for name in (name for name, value in more.items() if value is None):
        kept.pop(name, None)
    return kept


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    trace_id: str


class Service:
    """A server that is running; its spans come to the receiver under its name."""

    def __init__(self, name, receiver, folder, command, environ, *, instrument=True, flags=(), ready="/fast"):
        self.name = name
        self.port = free_port()
        self._receiver = receiver
        self._log = folder / f"{name}.log"
        launcher = ["opentelemetry-instrument", *flags] if instrument else []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BIN / launcher[0]), *launcher[1:], *(each.format(port=self.port) for each in command)]
                if launcher
                else [str(BIN / command[0]), *(each.format(port=self.port) for each in command[1:])],
                cwd=PROJECT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await(ready)

    def _await(self, path):
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(path, timeout=5).status == 200:
                    return
            time.sleep(0.05)
        log = self.log
        self.stop()
        pytest.fail(f"{self.name} did not start:\n{log[-3000:]}")

    @property
    def log(self):
        """All that it has said, on both streams."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def get(self, path, *, method="GET", timeout=30, remote_parent=True, headers=()):
        """Ask for *path*; unless told otherwise as part of a trace that somebody else has begun."""
        trace_id = secrets.token_hex(16)
        sent = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"} if remote_parent else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, headers={**sent, **dict(headers), "Connection": "close"})
            response = connection.getresponse()
            return Answer(response.status, response.read().decode("utf-8", "replace"), trace_id)
        finally:
            connection.close()

    def get_all(self, paths, **options):
        """Ask for all *paths* at once."""
        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(lambda path: self.get(path, **options), paths))

    def hang_up(self, path, after):
        """Ask for *path* and go away *after* so many seconds; returns the trace id."""
        trace_id = secrets.token_hex(16)
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01\r\n\r\n".encode()
            )
            time.sleep(after)
        return trace_id

    def spans(self, trace_id, *, count=1, seconds=15.0):
        """The spans of one trace, as soon as there are *count*."""
        return self._receiver.wait_for(self.name, lambda span: span.trace_id == trace_id, count=count, seconds=seconds)

    def all_spans(self, chosen=lambda _: True, *, count=0, seconds=15.0):
        return self._receiver.wait_for(self.name, chosen, count=count, seconds=seconds)

    def entry(self, trace_id):
        """The entry span of one trace."""
        found = self._receiver.wait_for(
            self.name, lambda span: span.trace_id == trace_id and span.kind == SERVER, seconds=15.0
        )
        assert found, f"no entry span came; the server said:\n{self.log[-3000:]}"
        return found[0]

    def ask(self, path, **options):
        """Ask for *path*; returns its entry span."""
        return self.entry(self.get(path, **options).trace_id)

    def stop(self):
        """End its processes, the leader first so that it can wait for its workers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(8)
        # It leads a session of its own: what is left of its group was started by it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Services:
    """Starts each service when it is first wanted; equal ones only once."""

    def __init__(self, receiver, folder):
        self._receiver = receiver
        self._folder = folder
        self._running = {}
        self._numbers = itertools.count()

    def __call__(self, kind, *, command=None, instrument=True, flags=(), ready="/fast", **environ):
        key = (kind, tuple(command or ()), instrument, tuple(flags), tuple(sorted(environ.items())))
        if key not in self._running:
            self._running[key] = self.start(
                kind, command=command, instrument=instrument, flags=flags, ready=ready, **environ
            )
        return self._running[key]

    def start(self, kind, *, command=None, instrument=True, flags=(), ready="/fast", **environ):
        """A new one, which the caller stops."""
        if not (BIN / "opentelemetry-instrument").exists():
            pytest.skip("opentelemetry-instrument is not installed beside this Python")
        module = NEEDS.get(kind, "gunicorn" if COMMANDS.get(kind, [""])[0] == "gunicorn" else "django")
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
        name = f"{kind}-{next(self._numbers)}"
        command = list(COMMANDS[kind] if command is None else command)
        if command[0] == "gunicorn":
            command[1:1] = gunicorn_options()
        return Service(
            name,
            self._receiver,
            self._folder,
            command,
            environment(
                **{
                    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self._receiver.endpoint(name),
                    "PROJECT_DATABASE": str(self._folder / f"{name}.sqlite3"),
                    **environ,
                }
            ),
            instrument=instrument,
            flags=flags,
            ready=ready,
        )

    def logs(self):
        return {service.name: service.log for service in self._running.values()}

    def stop(self):
        for each in self._running.values():
            each.stop()
