"""Profiles of real processes: scripts, management commands, Celery's workers; and whether they are right."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from profiled import busy, idle, running
from services import BIN, PROJECT, environment, free_port

from otel_introspect import introspection, profile

pytestmark = pytest.mark.realtime

JOBS = Path(__file__).parent / "jobs"
PROFILE = "otel_introspect.profile"
TEXT = "otel_introspect.profile.text"
ID = "otel_introspect.profile.id"
URL = "otel_introspect.profile.url"
CONSUMER = 5  # SPAN_KIND_CONSUMER
COMPLAINTS = ("otel_introspect failed", "ended span", "Failed to detach", "Traceback", "Fatal Python", "Alarm clock")


def profiles_of(span):
    return [event for event in span.events if event.name == PROFILE]


def complaints(said):
    return [line for line in said.splitlines() if any(each in line for each in COMPLAINTS)]


def launched(receiver, name, *command, cwd=JOBS, **environ):
    """Run *command* under the launcher to its end; what it printed."""
    if not (BIN / "opentelemetry-instrument").exists():
        pytest.skip("opentelemetry-instrument is not installed beside this Python")
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), *command],
        cwd=cwd,
        env=environment(
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.endpoint(name),
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django" if cwd is JOBS else None,
            OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=60_000,
            **environ,
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert complaints(done.stdout + done.stderr) == []
    return done.stdout


def span_with_profile(receiver, name):
    (span,) = receiver.wait_for(name, lambda span: bool(profiles_of(span)))
    return span


# --- Scripts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sampler", "pyinstrument"])
def test_a_script(receiver, engine):
    """
    A plain script under the launcher sends the span of its block, with the profile, before it ends.
    """
    name = f"nightly-{engine}"
    said = launched(receiver, name, "python", "nightly.py", OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE=engine)

    span = span_with_profile(receiver, name)
    (event,) = profiles_of(span)
    assert span.name == "nightly"
    assert span.attributes[ID] == event.attributes[ID] == said.split()[0]
    assert event.attributes["otel_introspect.profile.engine"] == engine
    assert event.attributes["otel_introspect.profile.trigger"] == "code"
    assert event.types == {
        ID: "string",
        TEXT: "string",
        "otel_introspect.profile.trigger": "string",
        "otel_introspect.profile.engine": "string",
        "otel_introspect.profile.interval_ms": "int",
        "otel_introspect.profile.sample_count": "int",
        "otel_introspect.profile.duration_ms": "int",
        "otel_introspect.profile.truncated": "bool",
    }
    assert "collect" in event.attributes[TEXT]
    assert "send" in event.attributes[TEXT]
    assert "collect" in said
    assert span.start < event.time <= span.end


def test_a_script_without_the_launcher():
    """
    The same script on its own runs as it is, prints its profile, and ends well.
    """
    done = subprocess.run(
        [sys.executable, "nightly.py"],
        cwd=JOBS,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "collect" in done.stdout


def test_a_script_that_keeps_its_profiles(receiver, tmp_path):
    """
    Short as the script is, its whole profile is in the directory when it has ended, for its owner only, and the link on
    the event leads there.
    """
    store = tmp_path / "kept" / "profiles"
    launched(receiver, "nightly-kept", "python", "nightly.py", OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(store))

    (event,) = profiles_of(span_with_profile(receiver, "nightly-kept"))
    profile_id = event.attributes[ID]
    assert {path.name for path in store.iterdir()} == {f"{profile_id}.html", f"{profile_id}.pyisession.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.iterdir()} == {0o600}
    link = urlsplit(event.attributes[URL])
    assert link.scheme == "file"
    assert Path(unquote(link.path)) == store / f"{profile_id}.html"
    assert "collect" in Path(unquote(link.path)).read_text(encoding="utf-8")


def test_a_store_that_can_not_be_written(receiver, tmp_path):
    """
    A directory that cannot be made costs a warning; the span has the profile.
    """
    (tmp_path / "file").write_text("not a directory", encoding="utf-8")
    launched(
        receiver,
        "nightly-unkept",
        "python",
        "nightly.py",
        OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(tmp_path / "file" / "profiles"),
    )

    (event,) = profiles_of(span_with_profile(receiver, "nightly-unkept"))
    assert "collect" in event.attributes[TEXT]


def test_a_management_command(receiver, tmp_path):
    """
    A block in one of Django's management commands.
    """
    pytest.importorskip("django")
    code = "import time\nfrom otel_introspect import profile\nwith profile(name='command'): time.sleep(0.1)"
    launched(
        receiver,
        "command",
        "python",
        "manage.py",
        "shell",
        "-c",
        code,
        cwd=PROJECT,
        PROJECT_DATABASE=tmp_path / "db.sqlite3",
    )

    span = span_with_profile(receiver, "command")
    assert span.name == "command"
    assert profiles_of(span)[0].attributes["otel_introspect.profile.sample_count"] > 5


def test_a_block_that_is_open_as_the_script_ends(receiver):
    """
    A script that exits, or is interrupted, inside its block has what was seen until then on its span.
    """
    code = (
        "import sys, time; from otel_introspect import profile\n"
        "with profile(name='early'):\n time.sleep(0.1)\n sys.exit(0)"
    )
    launched(receiver, "early", "python", "-c", code)

    assert "sys.exit" not in profiles_of(span_with_profile(receiver, "early"))[0].attributes[TEXT]


# --- Celery ---------------------------------------------------------------------------------------------------------


@pytest.fixture(name="celery", scope="module")
def _celery(receiver, tmp_path_factory):
    """Redis, and a worker with two processes under the launcher; runs a script that hands in tasks."""
    for module in ("celery", "redis", "opentelemetry.instrumentation.celery"):
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(module) is not None:
                continue
        pytest.skip(f"{module} is not installed")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("celery")
    port = free_port()
    environ = environment(
        JOBS_REDIS=f"redis://127.0.0.1:{port}/0",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.endpoint("celery"),
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django",
        DJANGO_SETTINGS_MODULE=None,
    )
    log = folder / "worker.log"
    command = [
        server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder),
    ]  # fmt: skip
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker_command = ["opentelemetry-instrument", "celery", "-A", "jobs", "worker", "--pool", "prefork", "-c", "2"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [str(BIN / worker_command[0]), *worker_command[1:], "--without-gossip", "--without-mingle"],
            cwd=JOBS,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def hand_in(expression):
        script = f"import jobs\nprint({expression}.get(timeout=30, propagate=False))"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=JOBS,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr + log.read_text(encoding="utf-8")[-3000:]
        return done.stdout.strip()

    try:
        yield hand_in
    finally:
        worker.send_signal(signal.SIGTERM)
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait(15)
        redis.terminate()
        redis.wait(15)
    said = [each for each in complaints(log.read_text(encoding="utf-8")) if "Traceback" not in each]
    assert said == []


def test_a_task(celery, receiver):
    """
    A decorated Celery task, in a forked worker, has its profile on its own span, and its result is as without.
    """
    made_by = int(celery("jobs.report.delay(0.2)"))

    spans = receiver.wait_for("celery", lambda span: span.kind == CONSUMER and bool(profiles_of(span)))
    span = spans[0]
    (event,) = profiles_of(span)
    assert span.name == "run/jobs.report"
    assert "build" in event.attributes[TEXT]
    caller, own, *_ = event.attributes[TEXT].splitlines()
    assert "celery/app/trace.py" in caller
    assert " report " in own
    assert event.attributes[ID] == span.attributes[ID]
    assert event.attributes["otel_introspect.profile.sample_count"] > 50
    assert made_by > 0


def test_a_task_that_fails(celery, receiver):
    """
    A task that raises has failed with its own exception, and has its profile.
    """
    assert "no such report" in celery("jobs.report.delay(0.1, fail=True)")

    def failed(span):
        return span.kind == CONSUMER and any(event.name == "exception" for event in span.events)

    span = receiver.wait_for("celery", failed)[0]
    assert "build" in profiles_of(span)[0].attributes[TEXT]


def test_a_slow_task(celery, receiver):
    """
    A task that nobody has decorated has a profile if it turns slow.
    """
    celery("jobs.plain.delay(0.8)")

    span = receiver.wait_for("celery", lambda span: span.name == "run/jobs.plain" and span.kind == CONSUMER)[0]
    (event,) = profiles_of(span)
    assert event.attributes["otel_introspect.profile.trigger"] == "slow"
    assert "build" in event.attributes[TEXT]


# --- Servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent", "uvicorn-instrumented"])
def test_tail_at_a_server(services, kind):
    """
    With ``tail`` the requests that fail or are slow have a profile from their first 50 ms on; those that are fast, and
    good, exempt or excluded, have none.
    """
    service = services(
        kind,
        OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS="tail",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=700,
        OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS="excluded",
    )
    wanted = ["/raising?seconds=0.4", "/slow?seconds=1.2"]
    unwanted = ["/fast", "/slow?seconds=0.3", "/exempted?seconds=1.2", "/excluded?seconds=1.2"]
    spans = {path: service.ask(path) for path in [*unwanted, *wanted, "/fast"]}

    assert {path: profiles_of(spans[path]) for path in unwanted} == {path: [] for path in unwanted}
    assert not any(ID in spans[path].attributes for path in unwanted)
    for path in wanted:
        (event,) = profiles_of(spans[path])
        assert event.attributes["otel_introspect.profile.trigger"] == "tail"
        assert "sleeping_helper" in event.attributes[TEXT]
        assert spans[path].attributes[ID] == event.attributes[ID]
    (event,) = profiles_of(spans["/slow?seconds=1.2"])
    assert event.attributes["otel_introspect.profile.duration_ms"] > 900
    assert complaints(service.log) in ([], ["Traceback (most recent call last):"])  # that of the view that raises


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent", "uvicorn-instrumented"])
def test_ratio_at_a_server(services, kind):
    """
    With a ratio of 1 each request has a profile, the fast ones too, each of its own work.
    """
    service = services(
        kind,
        OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS="ratio",
        OTEL_PYTHON_INTROSPECT_PROFILER_RATIO="1",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=60_000,
    )
    answers = service.get_all(["/slow?seconds=0.4", "/busy?seconds=0.4", "/slow?seconds=0.5"])
    texts = []
    for each in answers:
        (event,) = profiles_of(service.entry(each.trace_id))
        texts.append(event.attributes[TEXT])

    assert ["sleeping_helper" in text for text in texts] == [True, False, True]
    assert ["busy" in text for text in texts] == [False, True, False]
    assert len(profiles_of(service.ask("/fast"))) == 1


# --- Whether it is right --------------------------------------------------------------------------------------------


@pytest.fixture(name="profiled")
def _profiled(monkeypatch):
    monkeypatch.setattr(introspection, "_fallback", None)
    with running() as make_profiled:
        yield make_profiled()


class Clocked:
    """Functions that know how long they have run."""

    def __init__(self):
        self.seconds = {}

    def run(self, function, seconds):
        began = time.perf_counter()
        function(seconds)
        name = function.__name__
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def shares(self):
        total = sum(self.seconds.values())
        return {name: 100 * seconds / total for name, seconds in self.seconds.items()}


def seen(text, names):
    """The share of each in a profile's text."""
    found = dict.fromkeys(names, 0.0)
    for line in text.splitlines():
        match = re.search(r"([\d.]+) (\w+)  ", line)
        if match and match[2] in found:
            found[match[2]] += float(match[1])
    total = sum(found.values())
    return {name: 100 * seconds / total for name, seconds in found.items()}


def sixty(seconds):
    busy(seconds)


def thirty(seconds):
    busy(seconds)


def ten(seconds):
    busy(seconds)


def waiting(seconds):
    idle(seconds)


def handed(seconds):
    busy(seconds)


def mixed(clocked, *parts, rounds=25):
    uneven = random.Random(7)  # in no step with the sampling
    for _ in range(rounds):
        for function, seconds in parts:
            clocked.run(function, seconds * uneven.uniform(0.5, 1.5))


def assert_right(clocked, text):
    truth, found = clocked.shares(), seen(text, clocked.seconds)
    assert all(abs(truth[name] - found[name]) <= 5 for name in truth), (truth, found, text)


@pytest.mark.parametrize("where", ["main thread", "thread", "task"])
def test_sixty_thirty_ten(profiled, where):
    """
    Of three functions that take 60, 30 and 10 percent of the time the profile says so, within five points.
    """
    clocked = Clocked()
    parts = ((sixty, 0.036), (thirty, 0.018), (ten, 0.006))

    def run():
        with profiled.request(), profile():
            mixed(clocked, *parts)

    async def task():
        run()

    if where == "task":
        asyncio.run(task())
    elif where == "thread":
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()

    assert_right(clocked, profiled.text())


@pytest.mark.parametrize("where", ["main thread", "thread"])
def test_waiting_and_working(profiled, where):
    """
    A function that sleeps, and one that is run by a pool, have their shares within five points.
    """
    clocked = Clocked()

    def run():
        with profiled.request(), profile(), ThreadPoolExecutor(1) as pool:

            def in_pool(seconds):
                pool.submit(handed, seconds).result()

            in_pool.__name__ = "handed"
            # In the main thread what a pool does is looked at only after the alarm has been silent for a while.
            mixed(clocked, (sixty, 0.2), (waiting, 0.2), (in_pool, 0.4), rounds=3)

    if where == "thread":
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()

    assert_right(clocked, profiled.text())


def test_awaiting_and_working(profiled):
    """
    Of a task that computes, sleeps and waits for a thread, each has its share within five points.
    """
    clocked = Clocked()

    async def asleep(seconds):
        await asyncio.sleep(seconds)

    async def main():
        with profiled.request(), profile():
            for _ in range(25):
                clocked.run(sixty, 0.03)
                for name, work in (("asleep", asleep(0.02)), ("handed", asyncio.to_thread(handed, 0.02))):
                    began = time.perf_counter()
                    await work
                    clocked.seconds[name] = clocked.seconds.get(name, 0.0) + time.perf_counter() - began

    asyncio.run(main())

    assert_right(clocked, profiled.text())


def test_a_slow_request_is_right_too(monkeypatch):
    """
    At the pace at which requests are sampled that nobody has asked for, too.
    """
    monkeypatch.setattr(introspection, "_fallback", None)
    clocked = Clocked()
    with running() as make_profiled:
        profiled = make_profiled(triggers=("slow",), watchdog={"threshold": 50})
        with profiled.request():
            time.sleep(0.1)  # slow from here on
            mixed(clocked, (sixty, 0.036), (thirty, 0.018), (ten, 0.006), rounds=40)

        assert_right(clocked, profiled.text())
