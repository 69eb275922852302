"""What dead processes have left in the flight recorder's directory, and who of the living sees to it.

What is wanted: each file of a process that has died is read and sent off by exactly one of those that find it, however
many look at the same time; and by another one, if that one dies before it is done.

What does not work: a pid in the file's name, as pids are used again and containers share none; a rename alone, which
whoever makes it may not survive; a lock alone, as it says nothing once it is given up.

So: a process holds a lock on its file for as long as it lives, so that an unlocked one is a dead one's. Who wants it
takes that lock, looks whether the file still is where it was found, and renames it; it keeps the lock until the file is
removed. So a claimed file that nobody has locked is one whose claimer has died, too, and is claimed as any other.

What is not a regular file, or not this user's own, is let be, whatever its name: neither followed, read nor removed.

What can still fail: who dies between sending and removing has it sent twice. A process that was forked by code in C
which does not tell Python holds its parent's lock, and so hides that its parent has died.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from otel_introspect.engine.dead_man import Dump, parse_dump
from otel_introspect.engine.recorder_directory import (
    CLAIMED_SUFFIX,
    DUMP_SUFFIX,
    MAKING_SUFFIX,
    SUFFIX,
    RecorderDirectory,
)
from otel_introspect.engine.recorder_reading import (
    FlightRecord,
    UnreadableRecord,
    content_of,
    is_alive,
    open_file,
    parse_record,
)
from otel_introspect.faults import fail_open

if sys.platform != "win32":
    import fcntl

MAX_AGE_SECONDS: Final = 7 * 24 * 3600
"""How long a file that is of no use to anybody is kept."""
MAX_FILES: Final = 1000
"""How many of such are kept, the newest."""

_MAKING_SECONDS: Final = 60
_ATTEMPTS: Final = 10
_MOMENT: Final = 0.005
_MAX_DUMP_BYTES: Final = 1024 * 1024
_OURS: Final = (SUFFIX, CLAIMED_SUFFIX, MAKING_SUFFIX, DUMP_SUFFIX)

_held: Final[set[int]] = set()
"""The descriptors of files that are claimed here: a forked child would hold their locks."""


class Claim:
    """A dead process's file, which is the caller's to see to.

    Args:
        path: Where it is.
        file: Its descriptor, which has the lock.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path: Final = path
        self._file: int | None = file

    def record(self) -> FlightRecord:
        """What it says.

        Raises:
            UnreadableRecord: If it is not whole, or of another version.
            OSError: If it can't be read.
        """
        if self._file is None:
            why = "it has been given up"
            raise UnreadableRecord(why)
        data = content_of(self._file)
        return parse_record(self.path, data, data, os.fstat(self._file).st_mtime_ns)

    def dump(self) -> Dump | None:
        """What faulthandler had written by the end of that process; None if it had nothing to write."""
        path = self.path.with_suffix(DUMP_SUFFIX)
        try:
            if not is_own(os.lstat(path)):
                return None
            file = open_file(path)
        except OSError:
            return None
        try:
            status = os.fstat(file)
            if not is_own(status) or not status.st_size:
                return None
            return Dump(status.st_mtime_ns, parse_dump(os.pread(file, _MAX_DUMP_BYTES, 0)))
        finally:
            os.close(file)

    def settle(self) -> None:
        """It has been seen to: remove it."""
        _remove(self.path.with_suffix(DUMP_SUFFIX))
        _remove(self.path)
        self.give_up()

    def give_up(self) -> None:
        """Leave it to others, or to a later time."""
        file, self._file = self._file, None
        if file is not None:
            # Also for a child that has been forked by code in C, and shares this descriptor.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
            _let_go(file)


def abandoned(directory: RecorderDirectory) -> Iterator[Path]:
    """The files in it that nobody has locked, or that can't be told: a few system calls for each.

    Raises:
        DirectoryRefused: If it is not private.
        OSError: If it can't be read.
    """
    for path in directory.files():
        try:
            if is_own(os.lstat(path)) and is_alive(path):
                continue
        except FileNotFoundError:
            continue  # somebody else was quicker
        except OSError:
            pass  # whoever wants to claim it will be told why
        yield path


def claim(path: Path) -> Claim | None:
    """Make a dead process's file the caller's; None if its process lives, or somebody else has it.

    Raises:
        UnreadableRecord: If it is not a file of this user's own.
        OSError: If it can't be opened, renamed or locked.
    """
    try:
        status = os.lstat(path)
        check_own(status)
        file = open_file(path)
    except FileNotFoundError:
        return None
    _held.add(file)
    claimed = False
    try:
        check_own(os.fstat(file))
        if not _lock(file):
            return None
        # Somebody may have had the lock until now: then the file is gone, or has another name.
        if not _is_at(path, file):
            return None
        name = path.with_suffix(CLAIMED_SUFFIX)
        if name != path:
            path.rename(name)
        claimed = True
        return Claim(name, file)
    except FileNotFoundError:
        return None
    finally:
        if not claimed:
            _let_go(file)


def tidy(directory: RecorderDirectory, now: float | None = None) -> None:
    """Remove what is of no use to anybody: by age and by number, never a live process's, and nothing but our own.

    Raises:
        DirectoryRefused: If the directory is not private.
        OSError: If it can't be read.
    """
    for path in _useless(directory, time.time() if now is None else now):
        with fail_open("removing an old file of a flight recorder's"):
            _remove_if_free(path)


def needs_tidying(directory: RecorderDirectory, now: float | None = None) -> bool:
    """Whether there may be anything to remove. Raises as ``tidy`` does."""
    return any(_is_free(path) for path in _useless(directory, time.time() if now is None else now))


def is_own(status: os.stat_result) -> bool:
    """Whether it is a regular file of this very user's."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def check_own(status: os.stat_result) -> None:
    """See to it that it is.

    Raises:
        UnreadableRecord: If it is not.
    """
    if stat.S_ISLNK(status.st_mode):
        why = "it is a symbolic link"
    elif not stat.S_ISREG(status.st_mode):
        why = "it is not a regular file"
    elif not is_own(status):
        why = f"it belongs to another user ({status.st_uid})"
    else:
        return
    raise UnreadableRecord(why)


def _useless(directory: RecorderDirectory, now: float) -> list[Path]:
    """What is too old or too much, if no live process has it."""
    directory.check()
    with os.scandir(directory.path) as found:
        entries = [each for each in found if each.name.endswith(_OURS)]
    stems = {_stem(each.name) for each in entries if each.name.endswith((SUFFIX, CLAIMED_SUFFIX))}
    known = []
    for each in entries:
        if each.name.endswith(DUMP_SUFFIX) and _stem(each.name) in stems:
            continue  # goes with its record
        with suppress(OSError):
            status = each.stat(follow_symlinks=False)
            if is_own(status):
                known.append((status.st_mtime, Path(each.path)))
    known.sort(reverse=True)
    return [
        path for place, (modified, path) in enumerate(known) if place >= MAX_FILES or _is_too_old(path, now - modified)
    ]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_too_old(path: Path, age: float) -> bool:
    return age > (_MAKING_SECONDS if path.suffix == MAKING_SUFFIX else MAX_AGE_SECONDS)


def _is_free(path: Path) -> bool:
    # A process that waits for requests does not write to its file for days, but has it locked.
    try:
        return not is_alive(path)
    except OSError:
        return False


def _remove_if_free(path: Path) -> None:
    try:
        file = open_file(path)
    except FileNotFoundError:
        return
    _held.add(file)
    try:
        if _lock(file) and is_own(os.fstat(file)) and _is_at(path, file):
            _remove(path)
            if path.suffix in {SUFFIX, CLAIMED_SUFFIX}:
                _remove(path.with_suffix(DUMP_SUFFIX))
    finally:
        _let_go(file)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if is_own(os.lstat(path)):
            path.unlink()


def _lock(file: int) -> bool:
    """Whether it could be locked; who is just looking whether it is locked shares it for a moment."""
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT)
        else:
            return True
    return False


def _is_at(path: Path, file: int) -> bool:
    here, there = os.fstat(file), os.lstat(path)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _let_go(file: int) -> None:
    _held.discard(file)
    with suppress(OSError):
        os.close(file)


def _forked() -> None:
    # Only closed: the lock is the parent's, and giving it up would give up that.
    for file in list(_held):
        _let_go(file)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forked)
