"""``otel-introspect ps`` beside real servers: requests that sleep, keep the GIL, await, are stopped or were killed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from services import BIN, GUNICORN, environment

pytestmark = pytest.mark.realtime

PATIENCE = 40


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return tmp_path / "flight"


@pytest.fixture(name="ps")
def _ps(folder):
    """Runs the command; returns what it prints."""

    def ps(*arguments):
        done = subprocess.run(
            [str(BIN / "otel-introspect"), "ps", *map(str, arguments)],
            env=environment(OTEL_PYTHON_INTROSPECT_RECORDER_DIR=folder),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return ps


@pytest.fixture(name="sees")
def _sees(ps):
    """Waits until the requests in flight, by trace id, are as *expected* says; returns them."""

    def sees(expected):
        end = time.monotonic() + PATIENCE
        while True:
            found = {each["trace_id"]: each for each in json.loads(ps("--json"))["requests"]}
            if expected(found) or time.monotonic() > end:
                return found
            time.sleep(0.3)

    return sees


@pytest.fixture(name="start")
def _start(services, folder):
    started = []

    def start(kind, command=None, **environ):
        started.append(services.start(kind, command=command, OTEL_PYTHON_INTROSPECT_RECORDER_DIR=folder, **environ))
        return started[-1]

    yield start

    for service in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)  # some of its requests would not let it end
        service.stop()


@pytest.fixture(name="ask")
def _ask():
    """Asks for paths and stays on the line, as an event loop takes note of who hangs up; returns the trace ids."""
    with contextlib.ExitStack() as connections:

        def ask(service, *paths):
            trace_ids = []
            for path in paths:
                trace_ids.append(secrets.token_hex(16))
                connection = socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)
                connections.enter_context(connection)
                connection.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                    f"traceparent: 00-{trace_ids[-1]}-{secrets.token_hex(8)}-01\r\n\r\n".encode()
                )
            return trace_ids

        yield ask


def function_of(request):
    return (request["where"] or {"function": ""})["function"].rpartition(".")[2]


def test_gunicorn(start, ask, ps, sees):
    """
    Of requests that sleep, keep the GIL in a sum or are in a regular expression each is shown where it is, and as what.
    """
    service = start(
        "stuck-ps",
        [*GUNICORN, "-w", "3", "--timeout", "120", "wsgi"],
        DJANGO_SETTINGS_MODULE="stuck_settings",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS="thread,signal,faulthandler",
    )
    ways = ("stuck_in_sleep", "stuck_in_a_regex", "stuck_in_a_sum")
    places = dict(zip(ask(service, *(f"/{way}" for way in ways)), ways, strict=True))
    sleep, regex, total = places

    found = sees(
        lambda found: (
            {key: function_of(each) for key, each in found.items()} == places and found[total]["state"] == "GIL held"
        )
    )
    assert {key: function_of(each) for key, each in found.items()} == places
    assert (found[sleep]["state"], found[total]["state"]) == ("running", "GIL held")
    assert found[total]["observer"] == "faulthandler"
    assert len({each["pid"] for each in found.values()}) == 3
    assert (found[sleep]["method"], found[sleep]["route"]) == ("GET", "<str:way>")
    assert found[sleep]["where"]["file"].endswith("/project/stuck.py")

    assert 're.match(r"(a+)+$", "a" * 40 + "b")' in ps(found[regex]["pid"])
    stacks = ps(found[total]["pid"])
    assert stacks.count("sum(range(10**11))") == 2  # of the request, and among all threads
    assert "stuck_in_sleep" not in stacks
    table = ps().splitlines()
    assert len(table) == 4
    assert any(total in line and "GIL held" in line for line in table)

    os.kill(found[sleep]["pid"], signal.SIGSTOP)
    found = sees(lambda found: found.get(sleep, {}).get("state") == "stopped")
    assert found[sleep]["state"] == "stopped"

    os.killpg(service.process.pid, signal.SIGKILL)
    found = sees(lambda found: {each["state"] for each in found.values()} == {"gone"})
    assert {key: (each["state"], function_of(each)) for key, each in found.items()} == {
        key: ("gone", way) for key, way in places.items()
    }


def test_uvicorn(start, ask, sees):
    """
    Requests that await on one event loop do so each at its own place, and have their routes.
    """
    service = start("uvicorn")
    nested, shield = ask(service, "/async/nested?seconds=60", "/async/gather?seconds=60")
    found = sees(lambda found: {function_of(each) for each in found.values()} >= {"innermost", "first_leg"})

    assert {each["state"] for each in found.values()} == {"awaiting"}
    assert function_of(found[nested]) == "innermost"
    assert function_of(found[shield]) == "first_leg"
    assert found[nested]["route"] == "async/nested"


def test_an_orderly_end(start, ps, folder):
    """
    A service that has ended by itself leaves nothing to be shown.
    """
    service = start("single")
    assert service.get("/fast").status == 200
    service.stop()

    assert ps() == "No request is in flight (0 processes recording).\n"
    assert [each.name for each in Path(folder).iterdir()] == []
