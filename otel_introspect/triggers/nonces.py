"""Replay protection: each token counts once, for all processes of one user on one machine."""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable
from logging import WARNING
from typing import Final

from otel_introspect.faults import tell_once
from otel_introspect.triggers.refusal import Refused, refuse

MAX_REMEMBERED: Final = 10_000
"""How many nonces that have not expired yet a process remembers, and a directory holds. Who signs more is refused."""
CLEANING_INTERVAL: Final = 60.0
"""Seconds between two looks for files that have expired."""
MARGIN: Final = 60.0
"""Seconds for which a nonce is remembered beyond its end, for a clock that is set back a little."""

_MAX_LOOKED_AT: Final = 2 * MAX_REMEMBERED
_FILE: Final = re.compile(r"([0-9]{12})-[0-9a-f]{64}")


class Nonces:
    """The nonces that have been used, until they expire.

    They are files in a private directory, since the next request may reach another worker. Where there can be no such
    directory, which is said once, only this process remembers. A token counts once for each temporary directory: so
    once more on another machine, and under another user.

    Nothing here takes a lock: one operation of a dictionary decides between threads, one of the file system between
    processes. What was used before a fork is known after it.

    Args:
        directory: Where they are kept; one under the system's temporary directory if None is given.
        clock: The time of day in seconds.
    """

    def __init__(
        self, directory: str | os.PathLike[str] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._used: dict[str, list[int]] = {}
        self._cleaned_at = float("-inf")
        self._full = False
        self._told = False

    def use(self, digest: bytes, until: int) -> bool:
        """Note that a nonce has been used; says whether it was the first time.

        Only what a signature has vouched for may get here: it takes memory and a file.

        Args:
            digest: 32 bytes that stand for the nonce and for the key it was signed with.
            until: The time up to which the token would be accepted.

        Raises:
            Refused: ``rate`` if more nonces are in use than can be remembered.
        """
        # The end is a part of the name, so that a file says from its first moment on when it may go.
        name = f"{until:012d}-{digest.hex()}"
        now = self._clock()
        if len(self._used) >= MAX_REMEMBERED:
            self._forget(now)
        if name not in self._used and len(self._used) >= MAX_REMEMBERED:
            raise refuse("rate")
        mine = [until]
        if self._used.setdefault(name, mine) is not mine:
            return False
        try:
            return self._create(name, now)
        except OSError as error:
            self._tell(error)
            return True
        except Refused:
            self._used.pop(name, None)  # it may come again when there is room
            raise

    def _forget(self, now: float) -> None:
        for name, (until,) in list(self._used.items()):
            if until + MARGIN < now:
                self._used.pop(name, None)

    def _create(self, name: str, now: float) -> bool:
        """Make the file; says whether it was not there."""
        # Opened each time: a process that becomes a daemon closes all that it has open.
        directory = _open_private(self._path())
        try:
            if abs(now - self._cleaned_at) >= CLEANING_INTERVAL:
                self._cleaned_at = now
                self._full = _clean(directory, now) >= MAX_REMEMBERED
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
            if self._full:
                raise refuse("rate")
            try:
                os.close(os.open(name, flags, 0o600, dir_fd=directory))
            except FileExistsError:
                return False
            return True
        finally:
            os.close(directory)

    def _path(self) -> str | os.PathLike[str]:
        if self._directory is None:
            # Loaded only here, as only a signed request needs it.
            from tempfile import gettempdir

            self._directory = os.path.join(gettempdir(), f"otel_introspect-nonces-{os.geteuid()}")  # noqa: PTH118 - as below
        return self._directory

    def _tell(self, error: OSError) -> None:
        if self._told:
            return
        self._told = True
        tell_once(
            WARNING,
            "Signed requests for a profile can't be noted in %s (%s). Each worker now remembers only those that it has"
            " seen itself, so that another one may admit them again. Give it a directory that belongs to the service's"
            " user and has mode 0700, or remove what is in its place.",
            self._directory or "a temporary directory",
            error,
        )


def _open_private(path: str | os.PathLike[str]) -> int:
    """A descriptor of the directory *path*, made if need be.

    Raises:
        OSError: If it can't be made, or others have a say in it.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)  # noqa: PTH102 - all here goes by descriptors, which pathlib has not
    # A link in its place is not followed. What is looked at then is what was opened, whatever happens to the path.
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    objection = _objection(os.fstat(directory))
    if objection:
        os.close(directory)
        raise PermissionError(objection)
    return directory


def _objection(state: os.stat_result) -> str | None:
    if state.st_uid != os.geteuid():
        return f"it belongs to user {state.st_uid}"
    if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"its mode is {stat.S_IMODE(state.st_mode):04o}"
    return None


def _clean(directory: int, now: float) -> int:
    """Remove what has expired; says how many are left of those that were looked at."""
    left = 0
    with os.scandir(directory) as entries:
        for looked_at, entry in enumerate(entries):
            if looked_at >= _MAX_LOOKED_AT:
                break
            found = _FILE.fullmatch(entry.name)
            if found is None:
                continue
            if int(found[1]) + MARGIN >= now:
                left += 1
                continue
            with contextlib.suppress(FileNotFoundError):  # another process cleans, too
                os.unlink(entry.name, dir_fd=directory)
    return left
