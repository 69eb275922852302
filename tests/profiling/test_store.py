"""Where whole profiles are kept."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pyinstrument.session import Session

from otel_introspect import faults
from otel_introspect.profiling import store as module
from otel_introspect.profiling.store import STORE_THREAD_NAME, ProfileStore

SECONDS = 10


def session_of(samples=3):
    return Session(
        frame_records=[
            ([f"view\0/srv/v.py\0001\1l{n % 9}", f"part_{n}\0/srv/p.py\0003"], 0.01) for n in range(samples)
        ],
        start_time=0.0,
        duration=0.01 * samples,
        min_interval=0.01,
        max_interval=0.01,
        sample_count=samples,
        start_call_stack=["view\0/srv/v.py\0001"],
        target_description="GET /report",
        cpu_time=0.0,
        sys_path=[],
        sys_prefixes=[],
    )


def new_id():
    return secrets.token_hex(16)


def writers():
    return [thread for thread in threading.enumerate() if thread.name == STORE_THREAD_NAME]


@pytest.fixture(name="make_store")
def _make_store(tmp_path):
    made = []

    def make_store(location=None, **bounds):
        made.append(ProfileStore(str(tmp_path / "profiles") if location is None else location, **bounds))
        return made[-1]

    yield make_store

    for store in made:
        store.stop()
    assert writers() == []


@pytest.fixture(name="held")
def _held(monkeypatch):
    """A file system that does nothing until it is let, as a dead network's."""
    reached, let_go = threading.Event(), threading.Event()
    write_new = module._write_new

    def stuck(*arguments):
        reached.set()
        assert let_go.wait(SECONDS)
        write_new(*arguments)

    monkeypatch.setattr(module, "_write_new", stuck)
    yield reached, let_go
    let_go.set()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_both_files_are_written(make_store, tmp_path):
    """
    A profile becomes a page and a session that pyinstrument loads, and put returns where the page is.
    """
    store, profile_id = make_store(), new_id()

    url = store.put(profile_id, session_of)

    assert store.flush(SECONDS)
    assert names(tmp_path / "profiles") == [f"{profile_id}.html", f"{profile_id}.pyisession.json"]
    assert "part_2" in Path(unquote(urlsplit(url).path)).read_text(encoding="utf-8")
    loaded = Session.load(tmp_path / "profiles" / f"{profile_id}.pyisession.json")
    assert loaded.to_json() == json.loads(json.dumps(session_of().to_json()))


def test_the_link_is_the_absolute_path_as_a_url(make_store, tmp_path, monkeypatch):
    """
    A relative directory is meant from where the process was when the store was made; odd characters are quoted.
    """
    monkeypatch.chdir(tmp_path)
    store, profile_id = make_store("some where/ü"), new_id()
    monkeypatch.chdir("/")

    url = store.put(profile_id, session_of)

    assert url == f"file://{tmp_path}/some%20where/%C3%BC/{profile_id}.html"
    assert store.flush(SECONDS)
    assert (tmp_path / "some where" / "ü" / f"{profile_id}.html").exists()


def test_a_directory_may_be_given_as_a_url(make_store, tmp_path):
    """
    A file: URL means the directory at its path.
    """
    store, profile_id = make_store(f"file://{tmp_path}/some%20where/"), new_id()

    store.put(profile_id, session_of)

    assert store.flush(SECONDS)
    assert (tmp_path / "some where" / f"{profile_id}.html").exists()


def test_only_the_owner_may_read_them(make_store, tmp_path):
    """
    Files have mode 0600 and directories that the store makes 0700, whatever the umask; others keep theirs.
    """
    (tmp_path / "shared").mkdir(mode=0o750)
    store = make_store(str(tmp_path / "shared" / "a" / "b"))
    before = os.umask(0)
    try:
        store.put(new_id(), session_of)
        assert store.flush(SECONDS)
    finally:
        os.umask(before)

    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "shared" / "a" / "b").iterdir()} == {0o600}
    assert (tmp_path / "shared" / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "shared" / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "profile_id", ["", "../../etc/passwd", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n", "é" * 32]
)
def test_only_an_id_of_ours_becomes_a_file(make_store, tmp_path, profile_id):
    """
    Anything but 32 hexadecimal digits is refused, and counted.
    """
    assert make_store().put(profile_id, session_of) is None
    assert not (tmp_path / "profiles").exists()
    assert faults.counts["refused", "not the id of a profile"] == 1


def test_nothing_starts_before_the_first_profile(make_store, tmp_path):
    """
    Making a store starts no thread and touches no directory.
    """
    make_store()

    assert writers() == []
    assert list(tmp_path.iterdir()) == []


def test_the_session_is_made_on_the_store_s_thread(make_store):
    """
    Who ends a profile waits for no more than its text: the whole of it is made where it is written.
    """
    made_on = []

    def make_session():
        made_on.append(threading.current_thread().name)
        return session_of()

    store = make_store()
    store.put(new_id(), make_session)
    assert store.flush(SECONDS)

    assert made_on == [STORE_THREAD_NAME]


def test_a_session_that_cannot_be_made_costs_only_itself(make_store):
    """
    A fault of ours in one profile is counted, and the next one is kept.
    """
    store = make_store()
    store.put(new_id(), lambda: 1 / 0)
    kept = new_id()
    url = store.put(kept, session_of)
    assert store.flush(SECONDS)

    assert faults.counts["failed", "keeping a profile"] == 1
    assert Path(url.removeprefix("file://")).exists()


def test_put_waits_for_nothing_and_the_queue_is_bounded(make_store, held):
    """
    While storage is stuck profiles queue up to eight; then they are dropped, and counted.
    """
    reached, let_go = held
    store = make_store()
    assert store.put(new_id(), session_of) is not None
    assert reached.wait(SECONDS)

    began = time.perf_counter()
    urls = [store.put(new_id(), session_of) for _ in range(10)]
    took = time.perf_counter() - began

    assert [url is not None for url in urls] == [True] * 8 + [False] * 2
    assert took < 0.5
    assert faults.counts["dropped", "profile store is behind"] == 2
    assert not store.flush(0.01)
    let_go.set()
    assert store.flush(SECONDS)


def test_flush_has_nothing_to_wait_for_without_profiles(make_store):
    """
    A store that was never used, or is through, is flushed at once.
    """
    store = make_store()
    assert store.flush(0)
    store.put(new_id(), session_of)
    assert store.flush(SECONDS)

    assert store.flush(0.5)


def test_the_thread_ends_when_it_is_idle_and_comes_back(make_store, tmp_path, monkeypatch):
    """
    With nothing to do the thread ends; the next profile starts another.
    """
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    store = make_store()
    for _ in range(3):
        store.put(new_id(), session_of)
        assert store.flush(SECONDS)
        deadline = time.monotonic() + SECONDS
        while writers() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert writers() == []

    assert len(names(tmp_path / "profiles")) == 6


def test_profiles_from_many_threads_are_all_kept(make_store, tmp_path, monkeypatch):
    """
    However put and the end of the idle thread meet, no profile is forgotten.
    """
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.0)
    monkeypatch.setattr(module, "_MAX_WAITING", 1000)
    store = make_store()
    threads = [
        threading.Thread(target=lambda: [store.put(new_id(), lambda: session_of(1)) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.flush(SECONDS)
    assert len(names(tmp_path / "profiles")) == 80


def test_the_oldest_go_when_there_are_too_many(make_store, tmp_path):
    """
    Beyond the number to be kept, the oldest profiles are removed, both files of each; nobody else's files are.
    """
    directory = tmp_path / "profiles"
    directory.mkdir()
    others = ["notes.html", f"{'a' * 31}.html", f"{'a' * 32}.txt", ".hidden.tmp"]
    for name in others:
        (directory / name).write_text("mine")
        os.utime(directory / name, (0, 0))
    store = make_store(max_count=3)
    ids = [new_id() for _ in range(5)]
    for at, profile_id in enumerate(ids):
        store.put(profile_id, session_of)
        assert store.flush(SECONDS)
        for path in directory.glob(f"{profile_id}*"):
            os.utime(path, (1000 + at, 1000 + at))

    assert {name for name in names(directory) if name not in others} == {
        f"{profile_id}{suffix}" for profile_id in ids[-3:] for suffix in (".html", ".pyisession.json")
    }
    assert set(others) < set(names(directory))


def test_the_oldest_go_when_they_are_too_large(make_store, tmp_path):
    """
    Beyond the number of bytes the oldest profiles are removed, but never the one that was just written.
    """
    directory = tmp_path / "profiles"
    store = make_store(max_bytes=1)
    ids = [new_id() for _ in range(3)]
    for at, profile_id in enumerate(ids):
        store.put(profile_id, session_of)
        assert store.flush(SECONDS)
        for path in directory.glob(f"{profile_id}*"):
            os.utime(path, (1000 + at, 1000 + at))

    assert {name[:32] for name in names(directory)} == {ids[-1]}
    assert len(names(directory)) == 2


def test_what_a_process_left_when_it_died_is_removed_after_an_hour(make_store, tmp_path):
    """
    Temporary files of ours that are an hour old go, younger ones may still be written.
    """
    directory = tmp_path / "profiles"
    directory.mkdir()
    old, young = (directory / f".{new_id()}.{secrets.token_hex(8)}.tmp" for _ in range(2))
    for path, age in ((old, 3700), (young, 3500)):
        path.write_text("half")
        os.utime(path, (time.time() - age,) * 2)
    store = make_store()

    store.put(new_id(), session_of)

    assert store.flush(SECONDS)
    assert not old.exists()
    assert young.exists()


def test_a_failing_write_leaves_nothing_and_pauses(make_store, tmp_path, monkeypatch, caplog):
    """
    A full disk is logged once and counted, leaves no file, and for a minute no profile is linked that would be lost.
    """
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    def full(descriptor, piece):
        os.write(descriptor, piece[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_all", full)
    store = make_store()
    store.put(new_id(), session_of)
    assert store.flush(SECONDS)

    assert names(tmp_path / "profiles") == []
    assert faults.counts["failed", "writing a profile"] == 1
    assert store.put(new_id(), session_of) is None
    assert faults.counts["dropped", "profile store is failing"] == 1
    clock[0] += 61
    assert store.put(new_id(), session_of) is not None
    assert store.flush(SECONDS)
    assert faults.counts["failed", "writing a profile"] == 2
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_rename_that_fails_takes_the_other_file_with_it(make_store, tmp_path):
    """
    Either both files are there or none.
    """
    profile_id = new_id()
    (tmp_path / "profiles" / f"{profile_id}.html").mkdir(parents=True)
    store = make_store()

    store.put(profile_id, session_of)

    assert store.flush(SECONDS)
    assert names(tmp_path / "profiles") == [f"{profile_id}.html"]
    assert faults.counts["failed", "writing a profile"] == 1


def test_a_location_that_is_no_directory_is_told_once(make_store, tmp_path, caplog):
    """
    Where no directory can be, the log says so once, and profiles only go to their spans.
    """
    (tmp_path / "profiles").write_text("a file")
    store = make_store()

    store.put(new_id(), session_of)
    assert store.flush(SECONDS)

    assert store.put(new_id(), session_of) is None
    assert len(caplog.records) == 1
    assert "Profiles can't be kept in" in caplog.text


def test_a_deleted_working_directory_is_survived(make_store, tmp_path, monkeypatch, caplog):
    """
    A relative location in a directory that is gone can't be used, which is logged and nothing else.
    """
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    store = make_store("profiles")

    assert store.put(new_id(), session_of) is None
    assert store.flush(0)
    assert "can't be kept" in caplog.text


def test_a_symbolic_link_in_the_place_of_a_file_is_not_followed(make_store, tmp_path, monkeypatch):
    """
    Whoever guesses the temporary name and puts a link there gets nothing.
    """
    monkeypatch.setattr(module.secrets, "token_hex", lambda size: "b" * 2 * size)
    profile_id = "a" * 32
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / f".{profile_id}.{'b' * 16}.tmp").symlink_to(tmp_path / "taken")
    store = make_store()

    store.put(profile_id, session_of)

    assert store.flush(SECONDS)
    assert not (tmp_path / "taken").exists()
    assert faults.counts["failed", "writing a profile"] == 1


def test_a_machine_without_threads_left_is_survived(make_store, monkeypatch):
    """
    If no thread can be started the profile is not kept, and the next one tries again.
    """

    def no_more(run, name):
        raise RuntimeError("can't start new thread")

    store = make_store()
    with monkeypatch.context() as context:
        context.setattr(module, "start_thread", no_more)
        assert store.put(new_id(), session_of) is None
    assert store.flush(0)

    assert store.put(new_id(), session_of) is not None
    assert store.flush(SECONDS)


def test_stop_drops_what_waits_and_a_later_put_starts_again(make_store, held, tmp_path, monkeypatch):
    """
    Stopping waits for a stuck write only a little, and the store can be used again.
    """
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.05)
    reached, let_go = held
    store = make_store()
    first, second, third = new_id(), new_id(), new_id()
    store.put(first, session_of)
    assert reached.wait(SECONDS)
    store.put(second, session_of)

    store.stop()
    let_go.set()
    store.put(third, session_of)

    assert store.flush(SECONDS)
    deadline = time.monotonic() + SECONDS
    while len(writers()) > 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert {name[:32] for name in names(tmp_path / "profiles")} == {first, third}
    assert faults.counts["dropped", "profile store was stopped"] == 1


# --- fsspec ---------------------------------------------------------------------------------------------------------


@pytest.fixture(name="memory")
def _memory():
    fsspec = pytest.importorskip("fsspec")
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("location", ["memory://profiles", "memory://profiles/"])
def test_any_url_of_fsspec_will_do(make_store, memory, location):
    """
    A profile goes to an object store under its own name, and the link is its URL.
    """
    store, profile_id = make_store(location), new_id()

    url = store.put(profile_id, session_of)

    assert url == f"memory://profiles/{profile_id}.html"
    assert store.flush(SECONDS)
    assert b"part_2" in memory.cat(f"/profiles/{profile_id}.html")
    assert json.loads(memory.cat(f"/profiles/{profile_id}.pyisession.json")) == json.loads(
        json.dumps(session_of().to_json())
    )


def test_the_oldest_go_from_an_object_store_too(make_store, memory):
    """
    Number and size are bounded there as well.
    """
    store = make_store("memory://profiles", max_count=2)
    ids = [new_id() for _ in range(4)]
    for profile_id in ids:
        store.put(profile_id, session_of)
        assert store.flush(SECONDS)

    kept = {info.rpartition("/")[2][:32] for info in memory.ls("/profiles", detail=False)}
    assert kept == set(ids[-2:])


def test_an_upload_that_fails_leaves_nothing(make_store, memory, monkeypatch):
    """
    If the second file can't be uploaded the first is removed, and the fault counted.
    """
    put_file = type(memory).put_file

    def failing(self, local, remote, **given):
        put_file(self, local, remote, **given)
        if remote.endswith(".html"):
            raise OSError("connection reset")

    monkeypatch.setattr(type(memory), "put_file", failing)
    store = make_store("memory://profiles")

    store.put(new_id(), session_of)

    assert store.flush(SECONDS)
    assert memory.ls("/profiles", detail=False) == []
    assert faults.counts["failed", "writing a profile"] == 1


def test_storage_that_does_not_know_its_files_age_loses_none(make_store, memory, monkeypatch, caplog):
    """
    Without times nothing is removed, as it might be the newest.
    """
    ls = type(memory).ls
    monkeypatch.setattr(
        type(memory), "ls", lambda self, *a, **k: [{**each, "created": None} for each in ls(self, *a, **k)]
    )
    store = make_store("memory://profiles", max_count=1)
    for _ in range(2):
        store.put(new_id(), session_of)
        assert store.flush(SECONDS)

    assert len(memory.find("/profiles")) == 4
    assert "doesn't say how old" in caplog.text


def test_a_protocol_that_nobody_knows_is_told_once(make_store, caplog):
    """
    A URL of an unknown kind is warned about once, without the password in it, and then no link is given.
    """
    pytest.importorskip("fsspec")
    store = make_store("nonsense://user:secret@host/profiles")
    store.put(new_id(), session_of)
    assert store.flush(SECONDS)

    assert [store.put(new_id(), session_of) for _ in range(2)] == [None, None]
    assert len(caplog.records) == 1
    assert "nonsense://host/profiles" in caplog.text
    assert "secret" not in caplog.text


def test_without_fsspec_only_directories_are_possible(make_store, monkeypatch, caplog):
    """
    If fsspec is not installed the log says so, once.
    """
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)

    store = make_store("s3://bucket/profiles")

    assert store.put(new_id(), session_of) is None
    assert "fsspec is not installed" in caplog.text


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("s3://key:secret@bucket/a/b", "s3://bucket/a/b"),
        ("abfs://container@account.example/a", "abfs://container@account.example/a"),
        ("https://host/a?token=secret", "https://host/a"),
        ("memory://", "memory://"),
        ("/srv/a?b", "/srv/a?b"),
    ],
)
def test_no_password_is_shown(location, shown):
    """
    Links and messages are without what must stay secret.
    """
    assert module._without_secrets(location) == shown


@pytest.mark.parametrize(
    ("info", "modified"),
    [
        ({"mtime": 5}, 5.0),
        ({"LastModified": None, "updated": "1970-01-01T00:00:07Z"}, 7.0),
        ({"last_modified": "soon"}, None),
        ({}, None),
    ],
)
def test_each_storage_has_its_own_word_for_age(info, modified):
    """
    Times are understood as numbers, dates and ISO text.
    """
    assert module._modified(info) == modified


# --- Processes ------------------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys, threading, time
sys.path.insert(0, {tests!r})
from test_store import *
store = ProfileStore({directory!r})
"""


def run(script, directory, timeout=60, **given):
    text = PRELUDE.format(tests=str(Path(__file__).parent), directory=str(directory)) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout, check=False, **given
    )


@pytest.mark.realtime
def test_a_script_that_ends_right_after_its_profile_has_its_files(tmp_path):
    """
    The exit of the interpreter waits for what is queued.
    """
    done = run("[store.put(new_id(), lambda: session_of(3000)) for _ in range(3)]", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(names(tmp_path)) == 6


@pytest.mark.realtime
def test_under_gevent_it_is_written_while_a_greenlet_keeps_the_processor(tmp_path):
    """
    The thread is one of the operating system: nobody has to yield for it, and it ends with the process.
    """
    pytest.importorskip("gevent")
    done = run(
        """
        from gevent import monkey
        monkey.patch_all()
        profile_id = new_id()
        url = store.put(profile_id, lambda: session_of(300))
        deadline = time.monotonic() + 20
        while not os.path.exists(url.removeprefix("file://")) and time.monotonic() < deadline:
            pass
        print(len(names(Path(store._location))))
        store.put(new_id(), lambda: session_of(300))
        """,
        tmp_path,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    assert len(names(tmp_path)) == 4


@pytest.mark.realtime
def test_the_exit_waits_for_dead_storage_a_few_seconds_only(tmp_path):
    """
    A write that never ends does not keep the process from ending.
    """
    began = time.monotonic()
    done = run(
        """
        module._EXIT_SECONDS = 0.5
        module._write_new = lambda *arguments: time.sleep(600)
        store.put(new_id(), session_of)
        """,
        tmp_path,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 20


@pytest.mark.realtime
def test_a_process_that_is_killed_leaves_no_half_profile(tmp_path):
    """
    What has a profile's name is whole, whenever its writer died.
    """
    text = PRELUDE.format(tests=str(Path(__file__).parent), directory=str(tmp_path)) + textwrap.dedent(
        """
        print("ready", flush=True)
        while True:
            store.put(new_id(), lambda: session_of(2000))
            time.sleep(0.001)
        """
    )
    for delay in (0.05, 0.12, 0.2):
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()

    for name in names(tmp_path):
        assert re.fullmatch(r"\.[0-9a-f]{32}\.[0-9a-f]{16}\.tmp|[0-9a-f]{32}\.(html|pyisession\.json)", name)
    for path in tmp_path.glob("*.html"):
        assert path.read_text().rstrip().endswith("</html>")
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text())
    assert names(tmp_path)


@pytest.mark.realtime
def test_a_full_disk_is_survived(tmp_path):
    """
    When the operating system takes no more bytes, nothing is left behind and the process goes on.
    """
    done = run(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        store.put(new_id(), lambda: session_of(3000))
        assert store.flush(30)
        print(faults.counts["failed", "writing a profile"])
        """,
        tmp_path,
    )

    assert done.stdout == "1\n"
    assert "otel_introspect failed while writing a profile" in done.stderr
    assert names(tmp_path) == []


@pytest.mark.realtime
def test_several_processes_share_a_directory(tmp_path):
    """
    Processes that remove each other's old profiles while they write do no harm to each other.
    """
    script = PRELUDE.format(tests=str(Path(__file__).parent), directory=str(tmp_path)) + textwrap.dedent(
        """
        store = ProfileStore(store._location, max_count=3)
        for _ in range(40):
            store.put(new_id(), session_of)
            assert store.flush(30)
        print(dict(faults.counts))
        """
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]

    assert said == [("{}\n", "")] * 3
    assert 2 <= len(names(tmp_path)) <= 10
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def in_child(work):
    """The exit code of a forked child that does *work*."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:  # noqa: BLE001 - the child must not go on with the parent's tests
            os._exit(2)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "stuck"


@pytest.mark.parametrize("told", [True, False])
def test_a_forked_child_has_a_store_of_its_own(make_store, held, tmp_path, told):
    """
    A child, whether the fork is told or not, writes its own profiles and leaves its parent's to the parent.
    """
    reached, let_go = held
    store = make_store()
    parent_s, child_s = new_id(), new_id()
    store.put(parent_s, session_of)
    assert reached.wait(SECONDS)
    store._lock.acquire()  # as if another thread were in the middle of put

    def work():
        let_go.set()
        if told:
            store.after_fork()
        return store.flush(0) and store.put(child_s, session_of) is not None and store.flush(SECONDS)

    code = in_child(work)
    store._lock.release()

    assert code == 0
    assert {name[:32] for name in names(tmp_path / "profiles") if not name.startswith(".")} == {child_s}
    let_go.set()
    assert store.flush(SECONDS)
    assert {name[:32] for name in names(tmp_path / "profiles")} == {parent_s, child_s}
