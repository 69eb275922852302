"""The demo itself, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_introspect.demo.visits import SLOW_VISITS

pytestmark = pytest.mark.realtime

COMMAND = [sys.executable, "-c", "from otel_introspect.cli import main; main(prog_name='otel-introspect')", "demo"]
# A minute is what is promised; a machine that runs other tests at the same time may need more.
PATIENCE = 150


@pytest.fixture(name="environ")
def _environ(tmp_path):
    """The demo's copy goes into a directory of the test's own, so that what is left of it can be seen."""
    (tmp_path / "tmp").mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COV_", "COVERAGE_"))}
    # Nobody listens on port 9, so what happens to run on this machine does not get the spans.
    return {**kept, "TMPDIR": str(tmp_path / "tmp"), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def processes_below(directory):
    """The processes whose working directory is, or was, below *directory*."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(link.readlink()).startswith(str(directory)):
                found.append(link.parent.name)
        except OSError:  # gone meanwhile, or not ours to look at
            continue
    return found


def test_every_slow_view_explains_itself(environ, tmp_path):
    """
    The demo ends by itself with status 0; each slow view's function is on a stack, and fast requests are left alone.
    """
    result = subprocess.run(
        [*COMMAND, "--output", str(tmp_path / "out.jsonl")],
        env=environ, cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    text = result.stdout.decode()

    assert result.returncode == 0, text + result.stderr.decode()
    assert result.stderr == b""
    for visit in SLOW_VISITS:
        assert visit.title in text
        assert re.search(rf'> File ".*/shop/\w+\.py", line \d+, in .*\b{visit.function}$', text, re.MULTILINE), visit
    assert f"{len(SLOW_VISITS)} of {len(SLOW_VISITS)} slow requests explained themselves" in text
    assert re.search(r"\d+ of \d+ fast requests were left alone", text)
    assert "Sending to http://127.0.0.1:9/v1/traces failed" in text
    assert "\x1b" not in text
    check_file(tmp_path / "out.jsonl")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_below(tmp_path / "tmp") == []


def check_file(path):
    """Every line is OTLP JSON with hexadecimal ids."""
    lines = path.read_text().splitlines()
    spans = [
        span
        for line in lines
        for resource_spans in json.loads(line)["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        for span in scope_spans["spans"]
    ]
    assert all(re.fullmatch("[0-9a-f]{32}", span["traceId"]) for span in spans)
    assert all(re.fullmatch("[0-9a-f]{16}", span["spanId"]) for span in spans)
    assert len({span["spanId"] for span in spans}) == len(spans)
    assert (
        sum(event["name"] == "otel_introspect.stack_snapshot" for span in spans for event in span.get("events", ()))
        > 10
    )


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ended_in_the_middle_it_closes_the_shop(environ, tmp_path, number, expected):
    """
    Ctrl-C and SIGTERM end the demo with their usual status, and leave no process and no file behind.
    """
    with subprocess.Popen(
        [*COMMAND, "--output", str(tmp_path / "out.jsonl")],
        env={**environ, "PYTHONUNBUFFERED": "1"}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            while b"=== " not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(number)
            rest = process.stdout.read()
            status = process.wait(30)
        finally:
            process.kill()

    assert status == expected, rest
    assert b"Traceback" not in rest
    assert list((tmp_path / "tmp").iterdir()) == []
    assert processes_below(tmp_path / "tmp") == []


def test_the_schema_is_that_of_the_models(tmp_path, environ):
    """
    The shop's migration makes exactly the tables that its models describe.
    """
    import shutil

    from otel_introspect.demo import server

    shutil.copytree(server._HERE / "shop", tmp_path / "shop")
    subprocess.run(
        [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run"],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "shop.settings"},
        check=True,
        timeout=60,
    )


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_killed_it_takes_the_server_with_it(environ, tmp_path):
    """
    Even a demo that is killed leaves no server running: gunicorn notices that nobody holds its input any more.
    """
    with subprocess.Popen(
        [*COMMAND, "--output", str(tmp_path / "out.jsonl")],
        env={**environ, "PYTHONUNBUFFERED": "1"}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        while b"=== " not in process.stdout.readline():
            assert process.poll() is None
        assert processes_below(tmp_path / "tmp")
        process.kill()

    deadline = time.monotonic() + 30
    while processes_below(tmp_path / "tmp"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
