"""The directory of the flight recorder's files: private, or it is refused.

What is in there shows what an application does, and what is found there is sent off as spans. So nobody else may read
it, and nobody else may put anything there: neither by having made the directory first, as everybody may in ``/tmp``,
nor by a symbolic link in its place.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Final

_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

SUFFIX: Final = ".flight"
MAKING_SUFFIX: Final = ".making"
"""Of a file that is not ready yet; what is left over under that name was being made when its process died."""
CLAIMED_SUFFIX: Final = ".claimed"
DUMP_SUFFIX: Final = ".dump"


class DirectoryRefused(Exception):  # noqa: N818 - reads as what happened
    """The directory is not one that such files may be in; the message says why, and what to do."""


class RecorderDirectory:
    """Where flight recorders' files are.

    Args:
        setting: ``OTEL_PYTHON_INTROSPECT_RECORDER_DIR``: a path, or empty for a directory of this user's under the
            system's temporary one.
    """

    def __init__(self, setting: str = "") -> None:
        self._setting = setting

    @cached_property
    def path(self) -> Path:
        """Where it is, or would be; found out when it is needed, as the system's temporary directory is looked for."""
        return Path(self._setting).expanduser().absolute() if self._setting else _default()

    def make(self) -> Path:
        """Return it, made if it was not there.

        Raises:
            DirectoryRefused: If it is not private.
            OSError: If it can't be made.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            self.check()
        else:
            self.path.chmod(0o700)  # whatever the umask is
        return self.path

    def check(self, *, any_owner: bool = False) -> None:
        """See whether it is private.

        Args:
            any_owner: Also to another user, for root, who may look everywhere and writes nothing.

        Raises:
            DirectoryRefused: If it is not.
            OSError: If it is not there.
        """
        status = self.path.lstat()
        if stat.S_ISLNK(status.st_mode):
            why = f"{self.path} is a symbolic link, and must be a directory itself"
            raise DirectoryRefused(why)
        if not stat.S_ISDIR(status.st_mode):
            why = f"{self.path} is not a directory"
            raise DirectoryRefused(why)
        if not any_owner and status.st_uid not in {os.geteuid(), 0}:
            why = f"{self.path} belongs to another user ({status.st_uid}), and must be this one's own"
            raise DirectoryRefused(why)
        if status.st_mode & _OTHERS_MAY_WRITE:
            why = (
                f"{self.path} can be written by other users (mode {stat.S_IMODE(status.st_mode):o}, expected 700);"
                " a directory inside it that is not there yet will do, as it is made private"
            )
            raise DirectoryRefused(why)

    def files(self) -> list[Path]:
        """The flight recorders' files in it, claimed ones too; none if there is no such directory.

        Raises:
            DirectoryRefused: If it is not private.
        """
        try:
            self.check()
            names = os.listdir(self.path)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            return []
        return [self.path / name for name in sorted(names) if name.endswith((SUFFIX, CLAIMED_SUFFIX))]


def _default() -> Path:
    return Path(tempfile.gettempdir()) / f"otel-introspect-{os.getuid()}"
