"""A profile that comes out of a real gunicorn worker, in each format."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path
from pstats import Stats

import pytest
from services import BIN

from otel_introspect.triggers import tokens

pytestmark = pytest.mark.realtime

KEY = "a key of the tests, and of nobody else's"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module", name="profile")
def _profile(services, tmp_path_factory):
    """The event of one request's profile, whose whole is in a directory."""
    directory = tmp_path_factory.mktemp("profiles")
    service = services(
        "sync",
        OTEL_PYTHON_INTROSPECT_PROFILER_KEY=KEY,
        OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(directory),
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=30_000,
    )
    token = tokens.sign(KEY, "GET", b"/busy", "seconds=0.3")
    answer = service.get(f"/busy?seconds=0.3&__introspect__={token}")
    (event,) = [each for each in service.entry(answer.trace_id).events if each.name == "otel_introspect.profile"]
    files = [directory / f"{event.attributes['otel_introspect.profile.id']}{suffix}" for suffix in SUFFIXES]
    deadline = time.monotonic() + 20
    while not all(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    return event.attributes


SUFFIXES = (".pyisession.json", ".html")


def rendered(profile, format_, tmp_path):
    output = tmp_path / f"profile.{format_}"
    run = subprocess.run(
        [
            *(BIN / "otel-introspect", "render", profile["otel_introspect.profile.url"]),
            *("--format", format_, "--output", output),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return output


def test_its_url_is_the_page_s(profile):
    """
    The URL on the event is that of the page, which is there.
    """
    url = profile["otel_introspect.profile.url"]

    assert url.endswith(f"{profile['otel_introspect.profile.id']}.html")
    assert Path(url.removeprefix("file://")).stat().st_size > 10_000


@pytest.mark.parametrize("format_", ["text", "json", "html", "dot"])
def test_text_of_all_kinds(profile, tmp_path, format_):
    """
    The view's function is in it.
    """
    assert "busy" in rendered(profile, format_, tmp_path).read_text(encoding="utf-8")


def test_speedscope(profile, tmp_path):
    """
    The frames of a speedscope file have the view's function.
    """
    document = json.loads(rendered(profile, "speedscope", tmp_path).read_bytes())

    assert "busy" in {frame["name"] for frame in document["shared"]["frames"]}


def test_pstats(profile, tmp_path):
    """
    The standard library reads the statistics, and the view's function took most of the time.
    """
    stats = Stats(str(rendered(profile, "pstats", tmp_path)))
    (times,) = [entry for (_, _, name), entry in stats.stats.items() if name == "busy"]

    assert times[3] > 0.2


@pytest.mark.skipif(not shutil.which("dot") or not shutil.which("pdftoppm"), reason="no Graphviz or no poppler here")
def test_a_call_graph_as_pdf(profile, tmp_path):
    """
    The PDF of the call graph can be opened and has something on it.
    """
    pdf = rendered(profile, "pdf", tmp_path)
    subprocess.run(["pdftoppm", "-r", "50", "-png", pdf, tmp_path / "page"], check=True, timeout=60)

    (page,) = tmp_path.glob("page*.png")
    assert page.stat().st_size > 1_000
    assert "busy" in rendered(profile, "svg", tmp_path).read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_a_browser_shows_the_stored_page(profile, tmp_path):
    """
    The page in the store, and the rendered one, are shown without a word on the browser's console.
    """
    for page in (profile["otel_introspect.profile.url"], rendered(profile, "html", tmp_path).as_uri()):
        done = subprocess.run(
            [
                CHROMIUM,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'chromium'}"),
                *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom", page),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=90,
            check=False,
        )
        assert "CONSOLE" not in done.stderr
        assert "busy" in re.sub(r"(?s)<script>.*?</script>", "", done.stdout)
