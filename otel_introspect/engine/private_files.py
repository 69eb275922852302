"""Files that only their owner reads, each whole or not there."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Final

TEMPORARY_SUFFIX: Final = ".tmp"
"""Of a file that is being written."""


def create(path: str | os.PathLike[str]) -> int:
    """Make a file that was not there and open it for writing; returns its descriptor.

    Not a file object: a forked child would have what it buffers, and write it too.

    Raises:
        OSError: If it can't be made, or something is there.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_all(descriptor: int, piece: bytes) -> None:
    """Write all of *piece*, in however many steps."""
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_whole(path: str, content: bytes) -> None:
    """Have a file with this content at *path*, or, whatever happens, what was there before.

    Raises:
        OSError: If it can't be written.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    descriptor = create(temporary)
    try:
        try:
            write_all(descriptor, content)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
