"""Which requests are in flight in which process, as their flight recorders' files tell.

What is wanted: an answer also from a process that can give none, as its interpreter stands still, it is stopped, or it
is gone; without a debugger's rights.

So: nothing but files is read, those of the recorders and two of the kernel's about each process. Nothing is written,
locked for longer than a moment, or believed unchecked.

What can still fail: a process in another container that has the same directory but not the same view of processes: that
it is stopped is not seen then.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from otel_introspect.engine.dead_man import parse_dump
from otel_introspect.engine.flight_recorder import boot_id, process_start
from otel_introspect.engine.ownership import is_library
from otel_introspect.engine.recorder_directory import CLAIMED_SUFFIX, DUMP_SUFFIX, SUFFIX, RecorderDirectory
from otel_introspect.engine.recorder_layout import Frame
from otel_introspect.engine.recorder_reading import (
    FlightRecord,
    OpenSpan,
    UnreadableRecord,
    check_owner,
    is_alive,
    read_record,
)

State = Literal["running", "awaiting", "GIL held", "stopped", "gone"]

SECOND: Final = 1_000_000_000
_STILL_AFTER: Final = 2.5 * SECOND
"""So old is the sign of life, which comes once a second, of a process that does not come round any more."""
_MAX_DUMP: Final = 1024 * 1024
_METHODS: Final = ("http.request.method", "http.method")
_ROUTES: Final = ("http.route", "url.path", "http.target")
_WAITING: Final = ("awaiting", "switched_out")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A stack, and who saw it when.

    Args:
        frames: Innermost first.
        observer: Who saw it.
        taken: When, in nanoseconds since the epoch.
        task_state: What its task did, where it runs in one.
    """

    frames: tuple[Frame, ...]
    observer: str
    taken: int
    task_state: str | None = None

    def innermost(self) -> Frame | None:
        """The innermost frame of the application; the innermost one at all where it has none."""
        return next((each for each in self.frames if not is_library(each.file)), next(iter(self.frames), None))


@dataclass(frozen=True, kw_only=True)
class Request:
    """An entry span that is open.

    Args:
        span: As it was written down.
        state: What it does, as far as can be told.
        age: How long it has been open, in nanoseconds.
        seen: Where it was last seen, by whoever saw it last; None if nobody looked.
    """

    span: OpenSpan
    state: State
    age: int
    seen: Seen | None

    @property
    def method(self) -> str:
        """Its HTTP method; empty if it is none of HTTP's."""
        return _first(self.span.attributes, _METHODS)

    @property
    def route(self) -> str:
        """Its route, or path as long as that is not known; empty if it has neither."""
        return _first(self.span.attributes, _ROUTES)

    @property
    def title(self) -> str:
        """Method and route, or the span's name."""
        return f"{self.method} {self.route}" if self.method and self.route else self.span.name


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that records its requests.

    Args:
        record: What its file says.
        alive: Whether it has its file locked.
        requests: Those that are open, the oldest first.
        last_beat: How long ago its introspector's thread was alive, in nanoseconds; None if that can't be told.
        dump: What faulthandler has written, each thread's frames innermost first; None if nothing.
        dumped: When, in nanoseconds since the epoch.
    """

    record: FlightRecord
    alive: bool
    requests: tuple[Request, ...]
    last_beat: int | None = None
    dump: dict[int, tuple[Frame, ...]] | None = None
    dumped: int = 0

    @property
    def service(self) -> str:
        """The service's name; empty if it has none."""
        return _first(self.record.resource, ("service.name",))


@dataclass(kw_only=True)
class Sight:
    """What was found in some directories.

    Args:
        processes: By pid.
        unreadable: Each file that can't be read, and why.
    """

    processes: list[Process] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)

    def look(self, directory: RecorderDirectory) -> None:
        """Add what is in *directory*.

        Raises:
            DirectoryRefused: If it is not private.
            OSError: If it is not there, or can't be read.
        """
        directory.check(any_owner=os.geteuid() == 0)
        for name in sorted(os.listdir(directory.path)):  # noqa: PTH208 - raises here, not at the first file
            if not name.endswith((SUFFIX, CLAIMED_SUFFIX)):
                continue
            path = directory.path / name
            try:
                self.processes.append(_process(path))
            except UnreadableRecord as error:
                self.unreadable.append((path, str(error)))
            except FileNotFoundError:
                pass  # it has ended meanwhile, or has been recovered
            except OSError as error:
                self.unreadable.append((path, _why(error)))
        self.processes.sort(key=lambda process: (process.record.pid, process.record.path))


def _why(error: OSError) -> str:
    return "it is a symbolic link" if error.errno == errno.ELOOP else (error.strerror or str(error)).lower()


def _process(path: Path) -> Process:
    # Who recovers a file has it locked, but its process is gone.
    alive = not path.name.endswith(CLAIMED_SUFFIX) and is_alive(path)
    record = read_record(path, alive=alive)
    if alive and not path.exists():
        raise FileNotFoundError(path)  # it has just ended in an orderly way: its spans were open a moment ago
    now = time.time_ns()
    same_boot = record.boot_id == boot_id() and bool(record.boot_id)
    last_beat = max(time.monotonic_ns() - record.beat_monotonic, 0) if same_boot else None
    dump, dumped = _dump(path, record) if record.spans else (None, 0)
    state = _state_of(record, alive=alive, last_beat=last_beat, now=now, same_boot=same_boot)
    requests = []
    for span in record.spans:
        seen = _seen(span, dump, dumped)
        own: State = "awaiting" if seen is not None and seen.task_state in _WAITING else "running"
        requests.append(Request(span=span, state=state or own, age=max(now - span.start, 0), seen=seen))
    return Process(record=record, alive=alive, requests=tuple(requests), last_beat=last_beat, dump=dump, dumped=dumped)


def _state_of(record: FlightRecord, *, alive: bool, last_beat: int | None, now: int, same_boot: bool) -> State | None:
    """What is true of all requests of a process; None if each has its own state."""
    if not alive:
        return "gone"
    if same_boot and _is_stopped(record):
        return "stopped"
    if last_beat is not None and last_beat > _STILL_AFTER and record.spans:
        # Without a sign of life because it idled until just now, it is given time to come round.
        oldest = now - min(span.start for span in record.spans)
        if record.beat is not None or oldest > _STILL_AFTER:
            return "GIL held"
    return None


def _is_stopped(record: FlightRecord) -> bool:
    """Whether somebody has stopped the process, by SIGSTOP or with a debugger."""
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{record.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return status[0] in {b"T", b"t"} and process_start(record.pid) == record.process_start
    return False


def _seen(span: OpenSpan, dump: dict[int, tuple[Frame, ...]] | None, dumped: int) -> Seen | None:
    seen = None
    if span.stack is not None:
        stack = span.stack
        seen = Seen(frames=stack.frames, observer=stack.observer, taken=stack.taken, task_state=stack.task_state)
    thread_id = span.stack.thread_id if span.stack is not None else span.thread_id
    # A task that waits does not show on its thread's stack: what is there is another one's.
    if dump and dump.get(thread_id) and (seen is None or (seen.taken < dumped and seen.task_state not in _WAITING)):
        return Seen(frames=dump[thread_id], observer="faulthandler", taken=dumped)
    return seen


def _dump(path: Path, record: FlightRecord) -> tuple[dict[int, tuple[Frame, ...]] | None, int]:
    """What faulthandler has written about the process, and when."""
    name = path.name.removesuffix(CLAIMED_SUFFIX).removesuffix(SUFFIX)
    try:
        file = os.open(path.with_name(name + DUMP_SUFFIX), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, 0
    try:
        status = os.fstat(file)
        check_owner(status)
        # One that is older than all requests is about others.
        if not status.st_size or status.st_mtime_ns < min(span.start for span in record.spans):
            return None, 0
        stacks = parse_dump(os.read(file, _MAX_DUMP))
    except (OSError, UnreadableRecord):
        return None, 0
    finally:
        os.close(file)
    dump = {
        thread_id: tuple(Frame(function, name, line) for name, line, function in frames)
        for thread_id, frames in stacks.items()
    }
    return dump, status.st_mtime_ns


def _first(attributes: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((str(attributes[name]) for name in names if attributes.get(name)), "")


def directories(given: str, setting: str) -> Iterator[RecorderDirectory]:
    """Where to look: in the one that is *given*, or set; for root without either in that of every user."""
    if given or setting:
        yield RecorderDirectory(given or setting)
        return
    own = RecorderDirectory()
    if os.geteuid() != 0:
        yield own
        return
    others = sorted(own.path.parent.glob("otel-introspect-*"))
    yield from (RecorderDirectory(str(path)) for path in others if path.is_dir() and not path.is_symlink())
