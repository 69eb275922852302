"""Which files are looked at, and what is in them, as bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

TEMPLATES: Final = frozenset({".html", ".htm", ".djhtml", ".txt", ".xml"})
_MAX_BYTES: Final = 4 * 1024 * 1024
# What others have written, and what is made.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env"})
_MARK_OF_A_VENV: Final = "pyvenv.cfg"


class Source(NamedTuple):
    """One file.

    Args:
        path: As it is shown.
        data: What is in it.
        is_named: Whether the user has named it, and not only a directory that it is in.
    """

    path: str
    data: bytes
    is_named: bool

    @property
    def is_template(self) -> bool:
        """Whether it can be a template rather than Python."""
        return os.path.splitext(self.path)[1].lower() in TEMPLATES  # noqa: PTH122 - a text, which need not be a path


class Unreadable(NamedTuple):
    """A file that could not be read, and why."""

    path: str
    why: str
    is_named: bool


def sources(paths: Iterable[Path]) -> Iterator[Source | Unreadable]:
    """The files named, and of directories named all Python files and templates below them, in a fixed order."""
    for path in paths:
        if path.is_dir():
            for file in _below(path):
                yield _read(file, is_named=False)
        else:
            yield _read(path, is_named=True)


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        if _MARK_OF_A_VENV in files:
            folders.clear()
            continue
        folders[:] = sorted(each for each in folders if each not in _SKIPPED and not each.startswith("."))
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name only
            if suffix == ".py" or suffix in TEMPLATES:
                yield Path(folder, name)


def _read(path: Path, *, is_named: bool) -> Source | Unreadable:
    shown = str(path)
    try:
        # What is no file may never end, or wait for somebody.
        if not path.is_file():
            why = "there is no such file" if not path.exists() else "it is no file"
            return Unreadable(shown, why, is_named)
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        return Unreadable(shown, getattr(error, "strerror", None) or str(error), is_named)
    if len(data) > _MAX_BYTES:
        return Unreadable(shown, f"it is larger than {_MAX_BYTES // 1024 // 1024} MiB", is_named)
    return Source(shown, data, is_named)
