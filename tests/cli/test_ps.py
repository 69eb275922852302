"""``otel-introspect ps``: which requests it shows, in which state, how, and what it says where it can't look."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_introspect.cli import in_flight, main, ps
from otel_introspect.config import PREFIX
from otel_introspect.engine import recorder_directory
from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.stacks import capture, outwards

SECOND = 1_000_000_000
PATIENCE = 60
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
WRITES = """
import signal, sys, time
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory
recorder = FlightRecorder(RecorderDirectory(sys.argv[1]), lambda: {"service.name": "shop"})
recorder.open()
recorder.begin(7, 7, 0, time.time_ns(), 1, 1, 2, "GET /\\0GET\\0/slow")
print(recorder.path, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    monkeypatch.delenv(f"{PREFIX}RECORDER_DIR", raising=False)
    return tmp_path / "flight"


@pytest.fixture(name="recorder")
def _recorder(folder):
    recorder = FlightRecorder(RecorderDirectory(str(folder)), lambda: {"service.name": "shop"})
    recorder.open()

    yield recorder

    recorder.close()


@pytest.fixture(name="process")
def _process(folder):
    """Another process with one request in flight."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.path = Path(process.stdout.readline().strip())

    yield process

    process.kill()
    process.wait(PATIENCE)
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(name="run")
def _run(folder):
    def run(*arguments, directory=folder):
        given = [] if directory is None else ["--dir", str(directory)]
        return CliRunner().invoke(main, ["ps", *given, *map(str, arguments)])

    return run


@pytest.fixture(name="requests")
def _requests(run):
    """The requests that ``--json`` tells of, by span id."""

    def requests():
        result = run("--json")
        assert result.exit_code == 0, result.output
        return {int(each["span_id"], 16): each for each in json.loads(result.stdout)["requests"]}

    return requests


def begin(recorder, key=1, *, age=5.0, trace_id=TRACE_ID, text="GET /at/first\0GET\0/orders/17"):
    start = time.time_ns() - int(age * SECOND)
    recorder.begin(key, trace_id, 0, start, 77, 1, layout.STABLE_NAMES, text)


def saw(recorder, key=1, *, ago=0.5, **given):
    given.setdefault("thread_id", 77)
    recorder.saw(key, capture(outwards(sys._getframe(1))), time.time_ns() - int(ago * SECOND), **given)


def beat(recorder, *, ago, idle=False):
    """Have the last sign of life be so many seconds ago."""
    wall, monotonic = time.time_ns() - int(ago * SECOND), time.monotonic_ns() - int(ago * SECOND)
    layout.BEAT.pack_into(recorder._map, layout.BEAT_OFFSET, 0 if idle else wall, monotonic, 0)


# --- What is shown --------------------------------------------------------------------------------------------------


def test_a_request(recorder, run):
    """
    A line has pid, age, state, method and route, trace id and the innermost frame of the application.
    """
    begin(recorder)
    recorder.note(1, {"name": "GET orders/<id>", "attributes": {"http.route": "orders/<id>"}})
    saw(recorder)
    result = run()

    assert result.exit_code == 0
    heading, line = result.stdout.splitlines()
    assert heading.split() == ["PID", "AGE", "STATE", "REQUEST", "TRACE", "ID", "WHERE"]
    pid, age, state, method, route, trace_id, function, place = line.split()
    assert (pid, state, method, route) == (str(os.getpid()), "running", "GET", "orders/<id>")
    assert 5 <= float(age.rstrip("s")) < 5 + PATIENCE
    assert trace_id == f"{TRACE_ID:032x}"
    assert function == "test_a_request"
    assert place.startswith(f"({__file__}:")


def test_for_scripts(recorder, requests):
    """
    The same as numbers and strings, with the ids in OpenTelemetry's spelling and the whole stack.
    """
    begin(recorder)
    saw(recorder, task_state="running")
    found = requests()[1]

    assert (found["pid"], found["service"], found["state"]) == (os.getpid(), "shop", "running")
    assert (found["name"], found["method"], found["route"]) == ("GET /at/first", "GET", "/orders/17")
    assert (found["trace_id"], found["span_id"], found["parent_id"]) == (f"{TRACE_ID:032x}", f"{1:016x}", None)
    assert found["age_seconds"] >= 5
    assert 0.5 <= found["seen_seconds_ago"] < PATIENCE
    assert (found["observer"], found["task_state"]) == ("thread", "running")
    assert found["where"] == found["stack"][0]
    assert found["where"]["function"] == "test_for_scripts"


def test_a_request_that_nobody_has_looked_at(recorder, run, requests):
    """
    A young request is shown without a place.
    """
    begin(recorder, age=0.1)

    assert run().stdout.splitlines()[1].endswith(" -")
    assert requests()[1]["where"] is None


def test_something_that_is_no_request(recorder, run):
    """
    Work without method and route is shown by its name.
    """
    begin(recorder, text="nightly report\0\0")

    assert "  nightly report  " in run().stdout


def test_the_innermost_frame_of_the_application(recorder, requests):
    """
    What the application waits in, a library, is not where the request is.
    """
    begin(recorder)
    frames = []
    json.dumps({1: object()}, default=lambda _: frames.append(sys._getframe().f_back) or "x")
    recorder.saw(1, capture(outwards(frames[0])), time.time_ns())
    found = requests()[1]

    assert "json" in found["stack"][0]["file"]
    assert found["where"]["function"] == "test_the_innermost_frame_of_the_application"


def test_nothing_harmful_reaches_the_terminal(recorder, run):
    """
    Control characters from names and paths are shown as escapes.
    """
    begin(recorder, text="a\x1b[2Jb\n\u202e\0\0")
    out = run().stdout + run(os.getpid()).stdout

    assert "a\\x1b[2Jb\\n\\u202e" in out
    assert "\x1b" not in out


def test_several_processes(recorder, process, requests):
    """
    The requests of all processes in the directory are there.
    """
    begin(recorder, 1)
    found = requests()

    assert {each["pid"] for each in found.values()} == {os.getpid(), process.pid}


def test_nothing_in_flight(recorder, run):
    """
    That is an answer, too, and no failure.
    """
    result = run()

    assert (result.exit_code, result.stdout) == (0, "No request is in flight (1 process recording).\n")


# --- States ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_state", "state"),
    [(None, "running"), ("running", "running"), ("awaiting", "awaiting"), ("switched_out", "awaiting")],
)
def test_what_its_task_does(recorder, requests, task_state, state):
    """
    A request whose task or greenlet is parked awaits, any other one runs.
    """
    begin(recorder)
    saw(recorder, task_state=task_state)

    assert requests()[1]["state"] == state


@pytest.mark.parametrize(
    ("last_beat", "age", "state"),
    [
        ({"ago": 0.5}, 100, "running"),
        ({"ago": 2.0}, 100, "running"),
        ({"ago": 30}, 100, "GIL held"),
        ({"ago": 30}, 0.1, "GIL held"),
        ({"ago": 30, "idle": True}, 0.1, "running"),
        ({"ago": 30, "idle": True}, 20, "GIL held"),
    ],
)
def test_no_sign_of_life(recorder, requests, last_beat, age, state):
    """
    A live process that has not come round for 2.5 s has its interpreter held; one that has just begun is given time.
    """
    begin(recorder, age=age)
    beat(recorder, **last_beat)

    assert requests()[1]["state"] == state


def test_another_boot_s_clock(recorder, requests, monkeypatch):
    """
    Where the monotonic clock is not the same one, nothing is made of it.
    """
    begin(recorder, age=100)
    beat(recorder, ago=30)
    monkeypatch.setattr(in_flight, "boot_id", lambda: "another")

    assert requests()[1]["state"] == "running"


def test_a_stopped_process(process, requests):
    """
    A process that somebody has stopped says so, and not that its interpreter is held.
    """
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    try:
        assert requests()[7]["state"] == "stopped"
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_killed_process(process, requests):
    """
    Of a process that is gone the requests are shown until somebody has recovered them.
    """
    process.kill()
    process.wait(PATIENCE)
    assert requests()[7]["state"] == "gone"

    # While it is recovered, the one who does that has it locked.
    claimed = process.path.with_name(process.path.name + ".claimed")
    process.path.rename(claimed)
    assert requests()[7]["state"] == "gone"
    claimed.unlink()
    assert requests() == {}


# --- One process ----------------------------------------------------------------------------------------------------


def test_whole_stacks(recorder, run):
    """
    With a pid come ids, attributes and the whole stack with its source lines, most recent call last.
    """
    begin(recorder)
    saw(recorder, task_state="running")
    beat(recorder, ago=0.5)
    result = run(os.getpid())

    assert result.exit_code == 0
    assert f"process {os.getpid()}, shop, alive, 1 request in flight, last sign of life 0." in result.stdout
    assert f"trace id {TRACE_ID:032x}, span id {1:016x}" in result.stdout
    assert "  url.path=/orders/17\n" in result.stdout
    assert "ago by thread, running (most recent call last):" in result.stdout
    frame, source = result.stdout.rstrip().splitlines()[-2:]
    assert frame.endswith("in test_whole_stacks")
    assert source.strip() == 'saw(recorder, task_state="running")'


def test_only_that_process(recorder, process, run):
    """
    Requests of other processes are not shown.
    """
    begin(recorder)
    out = run(process.pid).stdout

    assert f"process {process.pid}, " in out
    assert f"process {os.getpid()}, " not in out


def test_no_such_process(recorder, run):
    """
    A pid that records nothing there is a failure, and the message says where it was looked for.
    """
    result = run(2**22 + 1)

    assert result.exit_code == 1
    assert f"No process {2**22 + 1} has a flight recorder in {recorder.path.parent}" in result.output


DUMP = """Timeout (0:00:02)!
Thread 0x000000000000004d (most recent call first):
  File "/app/shop/orders.py", line 12 in total
  File "/app/shop/views.py", line 3 in orders
Thread 0x0000000000000058 (most recent call first):
  File "/app/shop/other.py", line 5 in wait
"""


@pytest.fixture(name="dump")
def _dump(recorder):
    path = recorder.path.with_suffix(".dump")

    def dump(*, ago=0.0, text=DUMP):
        path.write_text(text)
        then = time.time_ns() - int(ago * SECOND)
        os.utime(path, ns=(then, then))

    yield dump

    path.unlink(missing_ok=True)


def test_what_faulthandler_has_written(recorder, dump, requests, run):
    """
    Where it has seen the request's thread last, that is where the request is; with a pid all its stacks are shown.
    """
    begin(recorder)
    saw(recorder, ago=3)
    dump()
    found = requests()[1]

    assert found["observer"] == "faulthandler"
    assert found["where"] == {"function": "total", "file": "/app/shop/orders.py", "line": 12}
    out = run(os.getpid()).stdout
    assert "by faulthandler (most recent call last):" in out
    assert "All threads, by faulthandler" in out
    assert 'File "/app/shop/other.py", line 5, in wait' in out


def test_what_faulthandler_wrote_before(recorder, dump, requests):
    """
    A dump is not taken for where the request is if somebody has seen that later, or it is older than every request.
    """
    begin(recorder)
    saw(recorder, ago=1)
    for ago in (2, 100):
        dump(ago=ago)
        assert requests()[1]["observer"] == "thread"


def test_a_task_that_waits_is_not_on_its_thread(recorder, dump, requests):
    """
    Of a task that was parked, what its thread does now shows nothing.
    """
    begin(recorder)
    saw(recorder, ago=3, task_state="awaiting")
    dump()

    assert requests()[1]["observer"] == "thread"


def test_a_dump_that_is_none(recorder, dump, requests):
    """
    Whatever is in that file, the requests are shown.
    """
    begin(recorder)
    dump(text="\0\0 Thread 0x")

    assert requests()[1]["where"] is None


# --- Again and again ------------------------------------------------------------------------------------------------


def test_watching(recorder, run, monkeypatch):
    """
    It is shown at each interval until Ctrl-C, which is no failure; for scripts one line each time.
    """
    begin(recorder)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ps.time, "sleep", sleep)
    result = run("--watch", "--interval", "0.5", "--json")

    assert result.exit_code == 0
    assert slept == [0.5, 0.5, 0.5]
    assert [len(json.loads(line)["requests"]) for line in result.stdout.splitlines()] == [1, 1, 1]


# --- Where it can't look --------------------------------------------------------------------------------------------


def test_no_directory(run, tmp_path):
    """
    Where no service has recorded anything the message says so, and how to look elsewhere.
    """
    result = run(directory=tmp_path / "nowhere")

    assert result.exit_code == 1
    assert f"There is no {tmp_path / 'nowhere'}: no service has recorded a request there." in result.stderr
    assert f"--dir DIR or {PREFIX}RECORDER_DIR" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("kind", ["writable", "link", "file"])
def test_a_directory_that_is_not_private(run, tmp_path, folder, kind):
    """
    What others may have put there is not shown.
    """
    if kind == "writable":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.write_text("")
    result = run()

    assert result.exit_code == 1
    assert str(folder) in result.stderr
    assert "Traceback" not in result.output


def test_the_recorder_is_off(run, monkeypatch):
    """
    With the recorder switched off here there is nothing to look at, unless it is said where.
    """
    monkeypatch.setenv(f"{PREFIX}RECORDER_DIR", "none")

    result = run(directory=None)
    assert result.exit_code == 1
    assert "RECORDER_DIR=none" in result.stderr


def test_the_setting(recorder, run, monkeypatch):
    """
    It looks where the environment says that services record.
    """
    begin(recorder)
    monkeypatch.setenv(f"{PREFIX}RECORDER_DIR", str(recorder.path.parent))

    assert f"{TRACE_ID:032x}" in run(directory=None).stdout


def test_root_sees_every_user_s(recorder, run, monkeypatch, tmp_path):
    """
    Without a directory root is shown those of all users; links and files by such a name are let be.
    """
    begin(recorder)
    monkeypatch.setattr(recorder_directory, "_default", lambda: tmp_path / "otel-introspect-0")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    own = tmp_path / "otel-introspect-1000"
    recorder.path.parent.rename(own)
    (tmp_path / "otel-introspect-link").symlink_to(own)
    (tmp_path / "otel-introspect-file").touch()
    result = run(directory=None)
    own.rename(recorder.path.parent)

    assert result.exit_code == 0
    assert result.stdout.count(f"{TRACE_ID:032x}") == 1
    assert result.stderr == ""


def test_files_that_can_t_be_read(recorder, run, folder):
    """
    Each is named with its reason, and the others are shown; names for scripts, too.
    """
    begin(recorder)
    (folder / "1.flight").write_bytes(b"")
    (folder / "2.flight").symlink_to(recorder.path)
    os.mkfifo(folder / "3.flight")
    data = bytearray(recorder.path.read_bytes())
    data[8] = 2
    (folder / "4.flight").write_bytes(data)
    (folder / "5.txt").touch()
    result = run()

    assert result.exit_code == 0
    assert f"{TRACE_ID:032x}" in result.stdout
    said = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in said] == [f"{folder}/{number}.flight" for number in range(1, 5)]
    assert "no flight recorder's file" in said[0]
    assert "it is a symbolic link" in said[1]
    assert "not a regular file" in said[2]
    assert "version 2" in said[3]
    assert len(json.loads(run("--json").stdout)["unreadable"]) == 4


def test_no_reading_for_others(recorder, monkeypatch):
    """
    Looking at another user's process, no file that it names is opened.
    """
    process = in_flight._process(recorder.path)
    line = test_no_reading_for_others.__code__.co_firstlineno
    assert ps._source(process, __file__, line) == "def test_no_reading_for_others(recorder, monkeypatch):"

    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert ps._source(process, __file__, line) == ""


def test_it_needs_no_rights_and_changes_nothing(recorder, run, folder):
    """
    No file is written, removed or left locked by looking.
    """
    begin(recorder)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    run()
    run(os.getpid())

    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
