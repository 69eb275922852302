"""Whether open requests can be written down where they outlive their process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.settings import understood
from otel_introspect.cli.diagnosis.surroundings import Surroundings, nearest_directory
from otel_introspect.config import RecorderConfig
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory
from otel_introspect.engine.recorder_layout import FILE_SIZE

_TOPIC: Final = "recorder"
_VARIABLE: Final = env.OTEL_PYTHON_INTROSPECT_RECORDER_DIR
_LOST: Final = "the requests of a process that is killed are lost, and ps shows nothing"
# Of so many processes the files should have room.
_PROCESSES: Final = 16


def recorder(here: Surroundings) -> Iterator[Finding]:
    """Where the flight recorder keeps its files, and whether it can."""
    setting = RecorderConfig.from_env(understood(here.environ)).directory
    if setting == "none":
        yield note(_TOPIC, f"off ({_VARIABLE}=none): {_LOST}.", f"Unset {_VARIABLE}.")
        return
    if sys.platform == "win32":
        yield note(_TOPIC, f"off, as it needs POSIX: {_LOST}.")
        return
    try:
        directory = RecorderDirectory(setting)
        yield from _directory(directory)
    except DirectoryRefused as error:
        yield problem(_TOPIC, f"{error}: {_LOST}.", f"Set {_VARIABLE} to a directory of this user's own.")
    except (OSError, RuntimeError) as error:
        yield problem(
            _TOPIC, f"There can be no directory ({error}): {_LOST}.", f"Set {_VARIABLE} to a directory of this user's."
        )


def _directory(directory: RecorderDirectory) -> Iterator[Finding]:
    path = directory.path
    if os.path.lexists(path):
        directory.check()
    nearest, writable = nearest_directory(path)
    if not writable:
        yield problem(
            _TOPIC,
            f"This user can't write to {nearest}: {_LOST}.",
            f"Make it writable for the service's user only, or set {_VARIABLE} to another directory.",
        )
        return
    yield ok(_TOPIC, f"Open requests are written down in {path}.")
    yield from _room(path, nearest)


def _room(path: Path, nearest: Path) -> Iterator[Finding]:
    status = os.statvfs(nearest)
    free = status.f_bavail * status.f_frsize
    if free < FILE_SIZE * _PROCESSES:
        yield note(
            _TOPIC,
            f"{free // 2**20} MiB are free in {path}, and each process needs {FILE_SIZE / 2**20:.0f}:"
            " one that finds no room has no recorder.",
        )
