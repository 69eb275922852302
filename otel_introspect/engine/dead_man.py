"""A dead-man's switch: whoever does not come round in time has all stacks written down by somebody who needs no GIL.

What is wanted: the stack of a request that keeps the GIL in C code, ``sum(range(10**9))`` say, on whatever thread,
while it is stuck there; also if the process is killed before it has come out of that.

What does not work: a thread, which does not run; a handler of a POSIX signal, which runs between two instructions of
the main thread; calling faulthandler when it is too late, as nobody is there to call it.

So: faulthandler's timer is set ahead of time, to a private file, and put off by the introspector's thread as long as
that comes round. Each setting starts a thread in C and costs some 25 us, so that it is done once a second as a rule.
What that file then holds is parsed, by that thread when it has come round again or by another process when this one is
dead.

What can still fail: the thread in C reads the stacks without making anybody hold still. While C code keeps the GIL that
is safe (none of 660 dumps crashed); where Python went on running meanwhile, because only we were late, about one dump
in a hundred crashed the process, on 3.13.0 as before (python/cpython#140815; 3.13.10 and 3.14.1 look before they leap).
So the switch forgives much, and is off while we do what may take long.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

from otel_introspect.engine.clock import Clock, SystemClock
from otel_introspect.engine.faulthandler_timer import TIMER, FaulthandlerTimer, is_supported
from otel_introspect.engine.native import allocate_lock
from otel_introspect.faults import fail_open, tell_once

Frame = tuple[str, int, str]
"""File, line and function of one frame; line 0 is an unknown one."""

PERIOD: Final = 1_000_000_000
"""It is put off no more often than this, in nanoseconds, and forgives lateness of no less."""
_NANOSECONDS: Final = 1_000_000_000
_SOON: Final = 1_000_000
_PATIENCE: Final = 0.05
# A request that starts as the introspector is about to come round is to be past the threshold, too.
_MARGIN: Final = 100_000_000
# After it has fired for nothing.
_FIRST_PAUSE: Final = 10_000_000_000
_LONGEST_PAUSE: Final = 320_000_000_000
_MAX_BYTES: Final = 1024 * 1024
# faulthandler itself writes a hundred of each at most.
_MAX_THREADS: Final = 256
_MAX_FRAMES: Final = 256
_MAX_LINE: Final = 4096
_MAX_LINE_NUMBER: Final = 2**31 - 1
UNKNOWN: Final = "???"


class Dump(NamedTuple):
    """What was written.

    Args:
        taken: When, in nanoseconds since the epoch.
        stacks: Each thread's frames, innermost first, by the thread's ``get_ident()``.
    """

    taken: int
    stacks: dict[int, list[Frame]]


class DeadManSwitch:
    """Fires unless it is put off.

    Args:
        threshold: How long a request may take, in nanoseconds: it is not to fire sooner after the start of one.
        idle: For how long whoever puts it off may sleep while there is nothing to come for.
        path: Says where the stacks are to be written; None for a private file without a name. Asked each time, as
            it may be another one by then.
        clock: What time it is.
        timer: The process's.
    """

    def __init__(
        self,
        *,
        threshold: int,
        idle: int,
        path: Callable[[], str | None] | None = None,
        clock: Clock | None = None,
        timer: FaulthandlerTimer = TIMER,
    ) -> None:
        # Who is that late does not come, as far as can be told.
        self._grace = max(threshold, PERIOD) + _MARGIN
        self._idle = idle
        self._path_wanted = path
        self._clock: Clock = SystemClock() if clock is None else clock
        self._timer = timer
        self._file: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._path: str | None = None
        self._fires_at: int | None = None
        self._until = 0
        self._pause = _FIRST_PAUSE
        self._pauses_until = 0
        # A request's thread and the introspector's may both want to set it.
        self._lock = allocate_lock()

    @property
    def fires_at(self) -> int | None:
        """When it fires, or has fired, in nanoseconds of the monotonic clock; None if it is not set."""
        return self._fires_at

    def follow(self) -> None:
        """Notice from now on if somebody else uses faulthandler's timer: then this stays away."""
        if is_supported():
            self._timer.follow(self)

    def begin(self) -> None:
        """A span has started after a while without any; on its thread.

        That request may keep the GIL from its start, so that the introspector does not come to set this.
        """
        if self._fires_at is None:
            with fail_open("setting faulthandler's timer"):
                # The introspector may be at it, and would not get on with it beside this request.
                self._put_off(self._clock.monotonic() + PERIOD // 2, patience=_PATIENCE)

    def go_on(self, wait: int | None) -> int | None:
        """The introspector means to come round in *wait* nanoseconds, None if there is nothing to come for.

        Returns:
            In how many it is to: while spans are open the switch is put off once a second, so that it need not wait
            longer.
        """
        now = self._clock.monotonic()
        if now < self._pauses_until:
            self.disarm()
            return wait
        planned = now + (self._idle if wait is None else wait)
        if self._fires_at is None or now >= self._until:
            is_set = False
            with fail_open("setting faulthandler's timer"):
                is_set = self._put_off(max(planned, now + PERIOD) if wait is None else now + PERIOD)
            if not is_set:
                return wait
        return wait if planned <= self._until else max(self._until - now, 0)

    def _put_off(self, until: int, patience: float = 0) -> bool:
        """Have it fire a while after *until*, and not before; says whether it will, if nobody comes round.

        Who finds another one at it waits so many seconds, and leaves it at what that has done.
        """
        if not is_supported():
            return False
        if not self._lock.acquire(blocking=False):
            if self._lock.acquire(timeout=patience):
                self._lock.release()
            return self._fires_at is not None
        try:
            self._fires_at = None
            self._timer.follow(self)
            if not self._timer.is_free:
                tell_once(logging.DEBUG, "The observer faulthandler is left out while others use faulthandler's timer.")
                return False
            self._timer.cancel(self)
            file = self._file_to_write()
            self.forget()
            fires_at = until + self._grace
            if not self._timer.set(self, max(fires_at - self._clock.monotonic(), _SOON) / _NANOSECONDS, file):
                return False
            self._until, self._fires_at = until, fires_at
            return True
        finally:
            self._lock.release()

    def disarm(self) -> None:
        """Have it not fire."""
        if self._fires_at is not None:
            self._fires_at = None
            self._timer.cancel(self)

    def pause(self) -> None:
        """It has fired for nothing, as the machine is only busy: be off for a while, and twice as long next time."""
        self._pauses_until = self._clock.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def pause_no_more(self) -> None:
        """It has fired, and rightly so."""
        self._pause = _FIRST_PAUSE

    def take(self) -> Dump | None:
        """What was written since it was put off; disarms it. Leaves the file as it is, for ``forget``."""
        self.disarm()  # also waits for the end of the writing
        if self._file is None or not self._is_ours(self._file):
            return None
        status = os.fstat(self._file)
        if not status.st_size:
            return None
        return Dump(status.st_mtime_ns, parse_dump(os.pread(self._file, _MAX_BYTES, 0)))

    def forget(self) -> None:
        """Empty the file; not while it is set."""
        if self._file is not None and self._is_ours(self._file) and os.fstat(self._file).st_size:
            os.ftruncate(self._file, 0)

    def _file_to_write(self) -> int:
        wanted = None if self._path_wanted is None else self._path_wanted()
        if self._file is not None and (wanted != self._path or not self._is_ours(self._file)):
            self._let_go()
        if self._file is None:
            try:
                self._file = _open(wanted) if wanted is not None else _anonymous()
            except OSError:
                if wanted is None:
                    raise
                # A full disk, or a directory that is gone: then it is of use to the living only.
                self._file = _anonymous()
            self._path = wanted
            status = os.fstat(self._file)
            self._identity = (status.st_dev, status.st_ino)
        return self._file

    def _is_ours(self, file: int) -> bool:
        """Whether nobody has closed the file: its number may be that of a connection to a database by now."""
        try:
            status = os.fstat(file)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _let_go(self, *, remove: bool = True) -> None:
        file, path, identity = self._file, self._path, self._identity
        if file is None:
            return
        if self._is_ours(file):
            # What nobody has taken out may be of use to whoever looks why this process has ended.
            is_empty = not os.fstat(file).st_size
            with suppress(OSError):
                os.close(file)
            if remove and path is not None and is_empty:
                with suppress(OSError):
                    status = os.lstat(path)
                    if (status.st_dev, status.st_ino) == identity:
                        os.unlink(path)
        self._file = self._path = self._identity = None

    def after_fork(self) -> None:
        """In a forked child: leave the parent its file. The timer sees to itself."""
        with fail_open("forking"):
            self._let_go(remove=False)
        self._reset()

    def close(self) -> None:
        """Disarm it, and give everything back."""
        with fail_open("giving back faulthandler's timer"):
            self._fires_at = None
            self._timer.leave(self)
            self._let_go()


# The end of the file, wherever that is by then: emptying it does not move the position.
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


def _open(path: str) -> int:
    return os.open(path, _FLAGS, 0o600)


def _anonymous() -> int:
    import tempfile

    # Not tempfile.TemporaryFile, which can't append where it makes a file that has no name from the start.
    file, path = tempfile.mkstemp(prefix="otel-introspect-")
    os.close(file)
    try:
        return os.open(path, _FLAGS & ~os.O_CREAT)
    finally:
        os.unlink(path)


@cache
def _compiled() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A thread's line, a frame's line, an escaped character."""
    return (
        # 3.14 has the thread's name in brackets.
        re.compile(r"(?:Current thread|Thread) 0x([0-9a-fA-F]{1,16})\b.*\(most recent call first\):"),
        re.compile(r'  File (?:"(.*)"|\?\?\?), line (\d{1,15}|\?\?\?) in (.+)'),
        re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))"),
    )


def parse_dump(data: bytes) -> dict[int, list[Frame]]:
    """Each thread's frames, innermost first, by the thread's id: of the last dump in *data*, whatever else that holds.

    Takes what every Python from 3.10 to 3.14 writes. A thread that runs no Python has no frames. What is not understood
    is left out, and so is a last line that is not ended: who wrote it may have been killed. Never raises.
    """
    thread_line, frame_line, _ = _compiled()
    stacks: dict[int, list[Frame]] = {}
    frames: list[Frame] | None = None
    for line in data[:_MAX_BYTES].decode("utf-8", "replace").split("\n")[:-1]:
        if len(line) > _MAX_LINE:
            continue
        line = line.strip("\0\r")  # noqa: PLW2901 - a file that was emptied meanwhile may begin with zeros
        if line.startswith("Timeout (") and line.endswith(")!"):
            stacks, frames = {}, None
        elif line.startswith("  File "):
            found = frame_line.fullmatch(line)
            if found is not None and frames is not None and len(frames) < _MAX_FRAMES:
                number = 0 if found[2] == UNKNOWN else min(int(found[2]), _MAX_LINE_NUMBER)
                frames.append((UNKNOWN if found[1] is None else _unescaped(found[1]), number, _unescaped(found[3])))
        elif not line.startswith(" "):
            found = thread_line.fullmatch(line)
            frames = None
            if found is not None and len(stacks) < _MAX_THREADS:
                frames = stacks[int(found[1], 16)] = []
    return stacks


def _unescaped(text: str) -> str:
    """*text* with the characters that faulthandler writes as escapes; a backslash of its own it does not escape."""
    return _compiled()[2].sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code) if code <= sys.maxunicode else found[0]
