"""Where whole profiles are kept: a directory or an object store, written on a thread of its own, bounded.

Wanted: the span links to the profile's page; whatever storage does, slow, dead or full, no request notices.

Does not work: writing where the profile ends, which is a request's thread or the introspector's; nor a pool of threads,
which under gevent are greenlets, and which keep the process from ending.

So: ``put`` appends to a short queue and returns the link. One daemon thread of the operating system, which ends when
there is nothing to do, makes and writes one session at a time, under a temporary name until it is whole. At the
interpreter's exit what is queued is waited for, a few seconds at most.

Still open: a link whose profile then can't be written leads nowhere. So after a failure no links are given for a
while.
"""

from __future__ import annotations

import atexit
import errno
import importlib.util
import logging
import os
import re
import secrets
import stat
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

from otel_introspect.engine.native import Lock, allocate_lock, start_thread
from otel_introspect.engine.private_files import create, write_all
from otel_introspect.faults import count, fail_open, failed, tell_once

if TYPE_CHECKING:
    from pyinstrument.session import Session

    from otel_introspect.profiling.html import Write

STORE_THREAD_NAME: Final = "otel-introspect-store"
"""Of the thread."""
MAX_COUNT: Final = 1000
"""How many profiles are kept, if nothing else is said."""
MAX_BYTES: Final = 256 * 1024 * 1024
"""How many bytes they may have together, if nothing else is said."""

_MAX_WAITING: Final = 8
_IDLE_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 2.0
_EXIT_SECONDS: Final = 5.0
# After a failure, until the next profile is tried.
_PAUSE_SECONDS: Final = 60.0
_STALE_SECONDS: Final = 3600.0

_UNUSABLE: Final = "profile store can't be used"

_ID: Final = re.compile(r"[0-9a-f]{32}")
_FILE: Final = re.compile(r"([0-9a-f]{32})(\.pyisession\.json|\.html)")
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{16}\.tmp")

_Writer = Callable[["Session", "Write"], None]
_Make = Callable[[], "Session"]


class _Stored(NamedTuple):
    """One of our files.

    Args:
        profile_id: Whose it is.
        name: Of the file.
        size: In bytes.
        modified: Seconds since the epoch; None where the storage doesn't say.
    """

    profile_id: str
    name: str
    size: int
    modified: float | None


class _Place(Protocol):
    """Where files are."""

    def url(self, name: str) -> str: ...

    def prepare(self) -> None:
        """Raise if nothing can be written here."""

    def write(self, profile_id: str, session: Session, writers: dict[str, _Writer]) -> None:
        """Write one file for each suffix: all of them or none."""

    def stored(self) -> Iterable[_Stored]: ...

    def remove(self, name: str) -> None: ...


class _Line:
    """What waits for one thread, and that thread's end."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, _Make] | Lock] = deque()
        """Profiles, and locks to be released when it is their turn."""
        self.busy = False
        self.closed = False
        """Whether the thread takes nothing more."""
        self.wakeup = allocate_lock()
        self.wakeup.acquire()
        self.ended = allocate_lock()
        self.ended.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self.wakeup.release()


class ProfileStore:
    """Keeps whole profiles, the newest of them, as pyinstrument's page and as a session that it can load.

    Args:
        location: A directory, as a path or a ``file:`` URL, or any URL that ``fsspec`` knows.
        max_count: How many profiles are kept.
        max_bytes: How many bytes they may have together; the newest is kept however large it is.
    """

    def __init__(self, location: str, *, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._location = location
        self._told = False
        self._place: _Place | None = None
        self._retry_at = 0.0
        self._at_exit: Callable[[], None] | None = None
        self._reset()
        try:
            self._place = _place(location)
        except (ImportError, OSError) as error:  # no fsspec; a relative path, and the current directory is gone
            self._tell_unusable(error)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = allocate_lock()
        self._line: _Line | None = None

    def put(self, profile_id: str, make_session: _Make) -> str | None:
        """Have a session made and written, soon; never waits for storage.

        Args:
            profile_id: 32 hexadecimal digits, made so that nobody can guess them.
            make_session: Called once, on another thread: who ends a profile does not wait for the whole of it.

        Returns:
            Where its page will be; None if it can't be kept.
        """
        if _ID.fullmatch(profile_id) is None:
            count("refused", "not the id of a profile")
            return None
        place = self._place  # the thread may find out meanwhile that it can't be used
        if place is None:
            count("dropped", _UNUSABLE)
            return None
        if time.monotonic() < self._retry_at:
            count("dropped", "profile store is failing")
            return None
        self._look_for_fork()
        return place.url(f"{profile_id}.html") if self._append((profile_id, make_session)) else None

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put has been written, *timeout* seconds at most; return whether it was.

        What could not be written counts as done.
        """
        self._look_for_fork()
        line = self._line
        if line is None or line.closed or not (line.waiting or line.busy):
            return True
        turn = allocate_lock()
        turn.acquire()
        return self._append(turn) and turn.acquire(timeout=timeout)

    def stop(self) -> None:
        """End the thread and wait a little for it; what still waits is dropped. A later ``put`` starts another."""
        self._look_for_fork()
        hook, self._at_exit = self._at_exit, None
        if hook is not None:
            atexit.unregister(hook)
        lock = self._lock
        lock.acquire()
        line, self._line = self._line, None
        if line is not None:
            line.closed = True
        lock.release()
        if line is None:
            return
        line.wake()
        if line.ended.acquire(timeout=_STOP_SECONDS):
            line.ended.release()

    def after_fork(self) -> None:
        """Start afresh in a forked child: what was waiting is the parent's, which goes on writing it."""
        self._reset()
        if self._at_exit is not None:  # the parent's, which the child has inherited or, under multiprocessing, not
            atexit.unregister(self._at_exit)
            self._at_exit = None

    def _look_for_fork(self) -> None:
        if self._process != os.getpid():  # some servers fork without telling Python
            self.after_fork()

    def _append(self, job: tuple[str, _Make] | Lock) -> bool:
        lock = self._lock
        lock.acquire()
        try:
            line = self._line
            if line is None or line.closed:
                line = self._line = _Line()
                started = False
            else:
                started = True
            if isinstance(job, tuple) and len(line.waiting) >= _MAX_WAITING:
                count("dropped", "profile store is behind")
                return False
            line.waiting.append(job)
            if started:
                line.wake()
                return True
            return self._start(line)
        finally:
            lock.release()

    def _start(self, line: _Line) -> bool:
        if self._at_exit is None:
            self._at_exit = partial(_flush_at_exit, weakref.ref(self))
            atexit.register(self._at_exit)
        try:
            start_thread(partial(self._run, line), STORE_THREAD_NAME)
        except RuntimeError as error:  # the interpreter is about to exit, or there are too many threads
            failed("starting the profile store's thread", error)
            self._line = None
            return False
        return True

    # What follows runs on the thread.

    def _run(self, line: _Line) -> None:
        try:
            while not line.closed:
                line.busy = True  # first, as who flushes looks at it last
                try:
                    job = line.waiting.popleft()
                except IndexError:
                    line.busy = False
                    if not line.wakeup.acquire(timeout=_IDLE_SECONDS):
                        self._close(line, unless_waiting=True)
                    continue
                if isinstance(job, tuple):
                    with fail_open("keeping a profile"):
                        self._keep(*job)
                    del job  # not kept while there is nothing to do
                else:
                    job.release()
        finally:
            self._close(line)
            for job in line.waiting:
                if isinstance(job, tuple):
                    count("dropped", "profile store was stopped")
                else:
                    job.release()
            line.ended.release()

    def _close(self, line: _Line, *, unless_waiting: bool = False) -> None:
        # Under the lock, so that nobody appends to what nobody reads any more.
        lock = self._lock
        lock.acquire()
        line.closed = line.closed or not (unless_waiting and line.waiting)
        lock.release()

    def _keep(self, profile_id: str, make_session: _Make) -> None:
        place = self._place
        if place is None:
            return
        try:
            place.prepare()
        except Exception as error:  # noqa: BLE001 - storage may raise whatever it likes
            count("dropped", _UNUSABLE)
            self._tell_unusable(error)
            if isinstance(error, (ImportError, ValueError)):  # a package is missing, or there is no such protocol
                self._place = None
            self._retry_at = time.monotonic() + _PAUSE_SECONDS
            return
        from otel_introspect.profiling.html import write_html, write_session_json

        session = make_session()
        try:
            place.write(profile_id, session, {".pyisession.json": write_session_json, ".html": write_html})
        except Exception as error:  # noqa: BLE001 - as above
            self._retry_at = time.monotonic() + _PAUSE_SECONDS
            failed("writing a profile", error)
            return
        with fail_open("removing old profiles"):
            self._remove_old(place, profile_id)

    def _tell_unusable(self, error: Exception) -> None:
        if not self._told:  # once for each store, as messages of storage may be different each time
            self._told = True
            message = "Profiles can't be kept in %s: %s. They only go to their spans."
            tell_once(logging.WARNING, message, _without_secrets(self._location), error)

    def _remove_old(self, place: _Place, newest: str) -> None:
        profiles: dict[str, list[_Stored]] = {}
        for each in place.stored():
            profiles.setdefault(each.profile_id, []).append(each)
        kept = profiles.pop(newest, [])
        number, size = 1, sum(each.size for each in kept)
        if any(each.modified is None for files in profiles.values() for each in files):
            tell_once(logging.WARNING, "The profile store doesn't say how old its files are. None are removed.")
            return
        by_age = sorted(profiles.values(), key=lambda files: max(each.modified or 0.0 for each in files), reverse=True)
        for files in by_age:
            number += 1
            size += sum(each.size for each in files)
            if number > self._max_count or size > self._max_bytes:
                for each in files:
                    with suppress(FileNotFoundError):  # another process was faster
                        place.remove(each.name)


def _flush_at_exit(reference: weakref.ref[ProfileStore]) -> None:
    store = reference()
    if store is not None:
        with fail_open("writing the last profiles"):
            store.flush(_EXIT_SECONDS)


def _place(location: str) -> _Place:
    scheme, separator, rest = location.partition("://")
    if not separator:
        path = os.path.expanduser(location)  # noqa: PTH111 - leaves alone what can't be expanded
    elif scheme == "file":
        path = unquote("/" + rest.partition("/")[2])
    elif importlib.util.find_spec("fsspec") is None:
        msg = "the package fsspec is not installed"
        raise ImportError(msg)
    else:
        return _Remote(location)
    return _Directory(Path(os.path.abspath(path)))  # noqa: PTH100 - resolve() would look at the disk


def _without_secrets(location: str) -> str:
    """*location* as it may be shown: a URL without its password and without what follows its path."""
    scheme, separator, rest = location.partition("://")
    if not separator:
        return location
    host, slash, path = rest.partition("?")[0].partition("/")
    user, _, server = host.rpartition("@")
    # A user without a password may be something else, such as a container.
    return f"{scheme}://{server if ':' in user else host}{slash}{path}"


# --- A directory ----------------------------------------------------------------------------------------------------


class _Directory:
    """Files that only their owner reads, each under a temporary name until it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def url(self, name: str) -> str:
        return (self._path / name).as_uri()

    def write(self, profile_id: str, session: Session, writers: dict[str, _Writer]) -> None:
        temporary: dict[Path, Path] = {}
        finished = []
        try:
            for suffix, writer in writers.items():
                path = self._path / f".{profile_id}.{secrets.token_hex(8)}.tmp"
                temporary[path] = self._path / f"{profile_id}{suffix}"
                _write_new(path, session, writer)
            for path, final in temporary.items():
                path.rename(final)
                finished.append(final)
        except BaseException:
            for path in (*temporary, *finished):
                with suppress(OSError):
                    path.unlink()
            raise

    def prepare(self) -> None:
        missing = []
        path = self._path
        while not path.is_dir() and path != path.parent:
            missing.append(path)
            path = path.parent
        for path in reversed(missing):
            with suppress(FileExistsError):  # another process was faster; if it is a file, writing will say so
                path.mkdir(mode=0o700)
        if not os.access(self._path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._path))

    def stored(self) -> Iterator[_Stored]:
        stale = time.time() - _STALE_SECONDS
        with os.scandir(self._path) as entries:
            for entry in entries:
                match = _FILE.fullmatch(entry.name)
                if match is None and _TEMPORARY.fullmatch(entry.name) is None:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if match is None and status.st_mtime < stale:  # of a process that died
                        self.remove(entry.name)
                except FileNotFoundError:  # another process was faster
                    continue
                if match is not None and stat.S_ISREG(status.st_mode):
                    yield _Stored(match[1], entry.name, status.st_size, status.st_mtime)

    def remove(self, name: str) -> None:
        (self._path / name).unlink()


def _write_new(path: Path, session: Session, writer: _Writer) -> None:
    descriptor = create(path)
    try:
        writer(session, partial(write_all, descriptor))
    finally:
        os.close(descriptor)


# --- Anything that fsspec knows -------------------------------------------------------------------------------------


class _Remote:
    """An object store. What is uploaded is made as a file first: an upload that is broken off may count as whole."""

    def __init__(self, location: str) -> None:
        self._location = location

    def url(self, name: str) -> str:
        base = _without_secrets(self._location)
        return f"{base}{name}" if base.endswith("/") else f"{base}/{name}"

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        # Asked for each time, as a forked child and another thread have their own.
        filesystem, path = url_to_fs(self._location)
        return filesystem, str(path).rstrip("/")

    def prepare(self) -> None:
        filesystem, root = self._open()
        with suppress(Exception):  # it may be there, and we may not be allowed to ask; writing will say so
            filesystem.makedirs(root, exist_ok=True)

    def write(self, profile_id: str, session: Session, writers: dict[str, _Writer]) -> None:
        import tempfile

        filesystem, root = self._open()
        finished = []
        try:
            with tempfile.TemporaryDirectory(prefix="otel-introspect-") as directory:
                for suffix, writer in writers.items():
                    name = f"{profile_id}{suffix}"
                    local = Path(directory) / name
                    _write_new(local, session, writer)
                    finished.append(f"{root}/{name}")
                    filesystem.put_file(str(local), finished[-1])
                    local.unlink()
        except BaseException:
            for path in finished:
                with suppress(Exception):
                    filesystem.rm_file(path)
            raise

    def stored(self) -> Iterator[_Stored]:
        filesystem, root = self._open()
        filesystem.invalidate_cache()
        for each in filesystem.ls(root, detail=True):
            name = str(each["name"]).rpartition("/")[2]
            match = _FILE.fullmatch(name)
            if match is not None:
                yield _Stored(match[1], name, int(each.get("size") or 0), _modified(each))

    def remove(self, name: str) -> None:
        filesystem, root = self._open()
        filesystem.rm_file(f"{root}/{name}")


# Each file system has its own word for it.
_MODIFIED: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


def _modified(info: dict[str, Any]) -> float | None:
    from datetime import datetime

    for key in _MODIFIED:
        value = info.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            with suppress(ValueError):
                return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    return None
