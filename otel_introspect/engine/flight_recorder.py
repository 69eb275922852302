"""The flight recorder: writes down which entry spans are open, where another process finds it when this one has died.

What is wanted: a span that never ends is never exported. If the process is killed, nothing of ours runs any more; so
what is known must be outside it before that, at no cost to a request that ends well.

What does not work: writing to a file is a system call for each request. Telling a process of our own is one, too.

So: a file that is mapped into memory. What is stored there is in the kernel's hands at once, whatever becomes of the
process. A request's thread does one ``pack_into`` as the span starts, and one as it ends; it takes no lock. Everything
else is written by the introspector's thread, some of it by a handler of a POSIX signal.

The file is as large from the start as it will ever be, and its blocks are allocated: where a disk is full, storing to a
hole would end the process. It is locked as long as the process lives, and a forked child lets go of it: so whoever
finds it unlocked knows that its process is gone, whatever has its pid by then.

What can still fail: a file that somebody cuts short under our hands. It is looked at once a second, and left if so; a
request that stores to it before that ends the process (SIGBUS). Nobody but its owner can do so.
A server in C that forks without telling Python: its child writes to its parent's file.
"""

from __future__ import annotations

import atexit
import errno
import itertools
import json
import logging
import mmap
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.native import allocate_lock
from otel_introspect.engine.recorder_directory import MAKING_SUFFIX, SUFFIX, DirectoryRefused, RecorderDirectory
from otel_introspect.engine.stack_text import line_of
from otel_introspect.engine.stacks import Capture
from otel_introspect.faults import count, fail_open, tell_once

if sys.platform != "win32":
    import fcntl

_FREE: Final = bytes(8)
_LONGEST_THRESHOLD: Final = 2**32 - 1
# Who adds evidence waits so long for another who is at it: only a collector that ends a span then is in its own way.
_PATIENCE: Final = 0.1
_NO_SUCH_CALL: Final = {None, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class _Made(NamedTuple):
    """A file of ours: where it is, its descriptor and its mapping."""

    path: Path
    file: int
    mapped: mmap.mmap


_recorders: Final[WeakSet[FlightRecorder]] = WeakSet()


class FlightRecorder:
    """Writes the entry spans of this process down as they start, and what is found out about them.

    Args:
        directory: Where the file is made, when it is first needed.
        resource: Says what the process is, as the attributes of an OpenTelemetry resource; asked once.
        threshold_ms: How long a span may be open before it counts as slow; 0 if it is not looked for such.
    """

    def __init__(
        self, directory: RecorderDirectory, resource: Callable[[], Mapping[str, Any]], threshold_ms: int = 0
    ) -> None:
        self._directory = directory
        self._resource = resource
        self._threshold_ms = min(max(threshold_ms, 0), _LONGEST_THRESHOLD)
        self._is_off = sys.platform == "win32"
        self._reset()
        _recorders.add(self)

    def _reset(self) -> None:
        self._map: mmap.mmap | None = None
        self._file: int | None = None
        # All that is open, of which there may be two for a moment: what a forked child must let go of.
        self._files: set[int] = set()
        self._maps: list[mmap.mmap] = []
        self.path: Path | None = None
        """The file; None while there is none."""
        self._free: list[int] = []
        self._slots: dict[Hashable, tuple[int, int]] = {}
        self._pages: dict[int, list[int]] = {}
        self._free_pages: list[int] = []
        self._ended: deque[int] = deque()
        self._sequence = itertools.count(1)
        self._writing = allocate_lock()
        self.overflowed = 0
        """How many spans found no slot."""
        self.is_open = False
        """Whether spans are written down. Read on the request's path."""

    # --- The file ---------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Make the file, unless there is one; says whether there is. Some system calls, once in a process."""
        if self.is_open or self._is_off:
            return self.is_open
        # Not for ever: it may be this very thread that is at it, and has been interrupted by a POSIX signal's handler.
        if not self._writing.acquire(timeout=_PATIENCE):
            return self.is_open
        try:
            if self.path is None and not self._is_off:
                self._open()
        finally:
            self._writing.release()
        return self.is_open

    def _open(self) -> None:
        try:
            made = self._make()
        except Exception as error:  # noqa: BLE001 - it would reach a request
            self._switch_off(_said(error))
            return
        self._free = list(range(layout.SLOT_COUNT - 1, -1, -1))
        self._free_pages = list(range(layout.PAGE_COUNT - 1, -1, -1))
        self.path, self._file, self._map = made
        self.is_open = True
        self.beat(idle=False)

    def _switch_off(self, why: str) -> None:
        self._is_off = True
        count("failed", "opening the flight recorder")
        tell_once(
            logging.WARNING,
            "otel_introspect keeps no flight recorder, so the requests of a process that is killed are lost: %s. Set"
            " OTEL_PYTHON_INTROSPECT_RECORDER_DIR to a directory of this user's own, or to none.",
            why,
        )

    def _make(self) -> _Made:
        folder = self._directory.make()
        path = folder / f"{os.getpid()}-{time.time_ns():x}-{os.urandom(4).hex()}{SUFFIX}"
        # Under another name until it is locked and has its header: who finds it before would take it for a dead one's,
        # or be just looking whether it is locked, so that it can't be.
        making = path.with_suffix(MAKING_SUFFIX)
        file = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._files.add(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _allocate(file, layout.FILE_SIZE)
            mapped = mmap.mmap(file, layout.FILE_SIZE)
            self._maps = [*filter(None, [self._map]), mapped]
            self._write_header(mapped)
            making.rename(path)
        except BaseException:
            self._let_go(file)
            with suppress(OSError):
                making.unlink()
            raise
        return _Made(path, file, mapped)

    def _let_go(self, file: int) -> None:
        """Close a file; its mapping goes with the last of those who are just storing to it."""
        self._files.discard(file)
        self._maps = [] if self._map is None else [self._map]
        with suppress(OSError):
            os.close(file)

    def _write_header(self, mapped: mmap.mmap) -> None:
        resource: Mapping[str, Any] = {}
        with fail_open("describing the process"):
            resource = self._resource()
        text = layout.json_text(resource, layout.RESOURCE_BYTES)
        block = layout.sealed(layout.BLOCK, (len(text),), text)
        mapped[layout.RESOURCE_OFFSET : layout.RESOURCE_OFFSET + len(block)] = block
        layout.THRESHOLD.pack_into(mapped, layout.THRESHOLD_OFFSET, self._threshold_ms)
        layout.HEADER.pack_into(
            mapped,
            0,
            layout.MAGIC,
            layout.VERSION,
            layout.HEADER_SIZE,
            layout.SLOT_SIZE,
            layout.SLOT_COUNT,
            layout.PAGE_SIZE,
            layout.PAGE_COUNT,
            os.getpid(),
            process_start(os.getpid()),
            boot_id().encode("ascii"),
        )

    def close(self) -> None:
        """Remove the file: spans that are still open are the living process's own to end."""
        self.is_open = False
        with self._writing:
            file, path = self._file, self.path
            self._map = self._file = self.path = None
            if path is not None:
                with suppress(OSError):
                    path.unlink()
        # Not before: giving up the lock says that it is a dead one's.
        if file is not None:
            self._let_go(file)

    def __del__(self) -> None:
        # Nobody else would close the file, which stays locked as long as it is open. One that is half made has none.
        if getattr(self, "_file", None) is not None:
            with suppress(Exception):
                self.close()

    def forget(self) -> None:
        """In a forked child: the file is the parent's."""
        files, maps = self._files, self._maps
        self._reset()
        for mapped in maps:
            # It has a descriptor of its own, which shares the lock; and threads that are not there any more may have
            # been storing to it, whose frames would keep it.
            with suppress(BufferError):
                mapped.close()
        for file in files:
            with suppress(OSError):
                os.close(file)

    # --- On the request's path --------------------------------------------------------------------------------------

    def begin(  # noqa: PLR0913, PLR0917 - what a slot holds; by position, as names cost more
        self,
        span_id: int,
        trace_id: int,
        parent_id: int,
        start: int,
        thread_id: int,
        kind: int,
        flags: int,
        text: str,
    ) -> None:
        """Write down a span that has just started. On its thread: no lock, no system call."""
        mapped = self._map
        if mapped is None:
            return
        try:
            slot = self._free.pop()
        except IndexError:
            self.overflowed += 1
            return
        sequence = next(self._sequence)
        # In this order: whoever ends it on another thread right now finds it.
        self._slots[span_id] = (slot, sequence)
        try:
            layout.SPAN.pack_into(
                mapped,
                layout.HEADER_SIZE + slot * layout.SLOT_SIZE,
                sequence,
                trace_id.to_bytes(16, "big"),
                span_id,
                parent_id,
                start,
                thread_id,
                kind,
                flags,
                text.encode("utf-8", "backslashreplace"),
                sequence,
            )
        except Exception:  # noqa: BLE001 - a value that no slot can hold: the span is not written down
            count("failed", "writing down a span")
            self.end(span_id)

    def end(self, key: Hashable) -> None:
        """Strike out a span that has ended. On whichever thread ends it: no lock, no system call."""
        found = self._slots.pop(key, None)
        if found is None:
            return
        slot, sequence = found
        mapped = self._map
        if mapped is None:
            return
        offset = layout.HEADER_SIZE + slot * layout.SLOT_SIZE
        mapped[offset : offset + 8] = _FREE
        if sequence in self._pages:
            # Not here: the collector may end a span on the very thread that is just writing.
            self._ended.append(sequence)
        self._free.append(slot)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    # --- On the introspector's thread -------------------------------------------------------------------------------

    def beat(self, *, idle: bool) -> None:
        """Say that the introspector's thread is alive, or that it has nothing to look at."""
        if not self.is_open:
            return
        if not self._is_whole():
            self._begin_anew()
        mapped = self._map
        if mapped is not None:
            layout.BEAT.pack_into(
                mapped, layout.BEAT_OFFSET, 0 if idle else time.time_ns(), time.monotonic_ns(), self.overflowed
            )

    def note(self, key: Hashable, facts: Mapping[str, Any]) -> None:
        """Write down what has been learned about a span since it started: its name now, attributes."""
        found, mapped = self._slots.get(key), self._map
        if found is None or mapped is None:
            return
        slot, sequence = found
        text = layout.json_text(facts, layout.NOTE_BYTES)
        encoded = layout.sealed(layout.NOTE, (sequence, len(text)), text)
        offset = layout.slot_offset(slot) + layout.NOTE_OFFSET
        mapped[offset : offset + len(encoded)] = encoded

    def saw(  # noqa: PLR0913 - what a slot holds of it
        self,
        key: Hashable,
        capture: Capture,
        taken: int,
        *,
        thread_id: int = 0,
        observer: layout.Observer = "thread",
        task_state: str | None = None,
    ) -> None:
        """Write down where a span was last seen. Also in a handler of a POSIX signal: takes no lock."""
        found, mapped = self._slots.get(key), self._map
        if found is None or mapped is None:
            return
        slot, sequence = found
        frames = [
            layout.Frame(getattr(code, "co_qualname", code.co_name), code.co_filename, line_of(code, lasti))
            for code, lasti in capture.positions
        ]
        text = layout.stack_text(frames, layout.STACK_BYTES)
        states = (layout.OBSERVERS.index(observer), layout.TASK_STATES.index(task_state))
        encoded = layout.sealed(layout.STACK, (sequence, taken, thread_id, *states, len(text)), text)
        offset = layout.slot_offset(slot) + layout.STACK_OFFSET
        # In one go, as the interpreter stands still meanwhile: the handler and the thread never mix.
        mapped[offset : offset + len(encoded)] = encoded

    def add_event(self, key: Hashable, name: str, attributes: Mapping[str, Any], timestamp: int) -> None:
        """Write down a piece of evidence that was put on a span. Any thread; never in a handler of a POSIX signal."""
        if key not in self._slots:
            return
        record = {"name": name, "time": timestamp, "attributes": attributes}
        line = json.dumps(record, separators=(",", ":"), default=list).encode("ascii") + b"\n"
        if not self._writing.acquire(timeout=_PATIENCE):
            count("dropped", "flight recorder is busy")
            return
        try:
            self._take_pages_back()
            found, mapped = self._slots.get(key), self._map
            if found is None or mapped is None:
                return
            _, sequence = found
            pages = self._pages.setdefault(sequence, [])
            if not self._append(mapped, sequence, pages, line):
                count("dropped", "flight recorder is full")
            if self._slots.get(key) is not found:  # it has ended meanwhile, and looked for its pages too early
                self._ended.append(sequence)
        finally:
            self._writing.release()

    def _take_pages_back(self) -> None:
        while self._ended:
            self._free_pages.extend(self._pages.pop(self._ended.popleft(), ()))

    def _append(self, mapped: mmap.mmap, sequence: int, pages: list[int], line: bytes) -> bool:
        used = 0
        if pages:
            _, _, used, _ = layout.PAGE.unpack_from(mapped, layout.page_offset(pages[-1]))
        # All of it or nothing: what is cut short is of no use.
        room = (layout.PAGE_BYTES - used if pages else 0) + len(self._free_pages) * layout.PAGE_BYTES
        if len(line) > room:
            return False
        while line:
            if not pages or used == layout.PAGE_BYTES:
                pages.append(self._free_pages.pop())
                used = 0
            offset = layout.page_offset(pages[-1])
            content = bytes(mapped[offset + layout.PAGE.size : offset + layout.PAGE.size + used])
            part, line = line[: layout.PAGE_BYTES - used], line[layout.PAGE_BYTES - used :]
            content += part
            sealed = layout.sealed(layout.PAGE, (sequence, len(pages) - 1, len(content)), content)
            # Behind what is there already, which stays whole if this is as far as it comes; the header last.
            start = offset + layout.PAGE.size
            mapped[start + used : start + len(content)] = part
            mapped[offset:start] = sealed[: layout.PAGE.size]
            used = len(content)
        return True

    def _is_whole(self) -> bool:
        if self._file is None:
            return False
        try:
            status = os.fstat(self._file)
        except OSError:
            return False
        self._was_removed = status.st_nlink == 0
        self._was_cut = status.st_size < layout.FILE_SIZE
        return not self._was_removed and not self._was_cut

    def _begin_anew(self) -> None:
        """Go on in another file, as this one was removed or cut short."""
        with self._writing:
            before = self._map
            if before is None or self._file is None or self.path is None:
                return
            path, file, was_cut = self.path, self._file, self._was_cut
            try:
                made = self._make()
                if not was_cut:  # what has been cut off can't be read
                    made.mapped[layout.HEADER_SIZE :] = before[layout.HEADER_SIZE :]
            except Exception as error:  # noqa: BLE001 - there can be none, for whatever reason
                self._map = self._file = self.path = None
                self.is_open = False
                self._switch_off(f"its file was removed or cut short, and there can be no other: {_said(error)}")
            else:
                count("failed", "the flight recorder's file was removed or cut short")
                # Who had which slot and page stays as it was, whatever is in them.
                self.path, self._file, self._map = made
                if not was_cut:
                    self._catch_up(before, made.mapped)
        if was_cut:
            with suppress(OSError):
                path.unlink()
        self._let_go(file)

    def _catch_up(self, before: mmap.mmap, mapped: mmap.mmap) -> None:
        """Do in the new file what requests have done in the old one since it was copied."""
        for slot in range(layout.SLOT_COUNT):
            start = layout.slot_offset(slot)
            written = bytes(mapped[start : start + 8])
            ours = {sequence for taken, sequence in list(self._slots.values()) if taken == slot}
            if written != _FREE and int.from_bytes(written, "little") not in ours:
                mapped[start : start + 8] = _FREE
            for sequence in ours:
                if int.from_bytes(before[start : start + 8], "little") == sequence != int.from_bytes(written, "little"):
                    mapped[start : start + layout.SLOT_SIZE] = before[start : start + layout.SLOT_SIZE]


def _said(error: Exception) -> str:
    if isinstance(error, DirectoryRefused):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return repr(error)


def _allocate(file: int, size: int) -> None:
    """Have the file that large, with every block of it there."""
    try:
        os.posix_fallocate(file, 0, size)
    except (AttributeError, OSError) as error:  # macOS has no such call, some file systems and C libraries neither
        if getattr(error, "errno", None) not in _NO_SUCH_CALL:
            raise
        if os.write(file, bytes(size)) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None


def boot_id() -> str:
    """Which boot of the machine this is; empty if it can't be told."""
    with suppress(OSError, UnicodeDecodeError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:36]
    return ""


def process_start(pid: int) -> int:
    """When a process started, in the kernel's ticks since boot; 0 if it can't be told. Two of one pid differ in it."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])
    return 0


def _forked() -> None:
    for recorder in list(_recorders):
        with fail_open("forking"):
            recorder.forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forked)


def _at_exit() -> None:
    for recorder in list(_recorders):
        with fail_open("closing the flight recorder"):
            recorder.close()


atexit.register(_at_exit)
