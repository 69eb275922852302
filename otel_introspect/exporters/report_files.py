"""The traces exporter ``introspect_files``: a directory with one file for each slow request, the newest of them."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from otel_introspect import environment_variables as env
from otel_introspect import faults
from otel_introspect.config import EmailConfig, ReportsConfig
from otel_introspect.engine.private_files import write_whole
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory
from otel_introspect.exporters.report import safe_name, text_of
from otel_introspect.exporters.reporting import QueuedReports, missed_note
from otel_introspect.exporters.span_view import SpanView

_NAME: Final = re.compile(r"[\dTZs.-]+-(?:[0-9a-f]+|unknown)-(?:[0-9a-f]+|unknown)\.txt")
_TEMPORARY: Final = re.compile(rf"\.{_NAME.pattern}\.[0-9a-f]{{16}}\.tmp")
_STALE_SECONDS: Final = 3600.0


class IntrospectFilesExporter(QueuedReports):
    """Writes reports that only their owner reads, into a directory that is private.

    Args:
        options: Of ``ReportsConfig``; what is not given is read from the environment.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - checked there
        super().__init__("otel-introspect-files")
        self._config = config = ReportsConfig.from_env(overrides=options)
        self._link = EmailConfig.from_env().link
        self._directory = RecorderDirectory(config.directory) if config.directory else None
        if self._directory is None:
            variable = env.OTEL_PYTHON_INTROSPECT_REPORTS_DIR
            faults.tell_once(
                logging.WARNING, "introspect_files writes nothing: set %s to a directory of this user's own.", variable
            )

    def _take(self, span: SpanView) -> bool:
        return self._directory is not None and super()._take(span)

    def _tell(self, span: SpanView, missed: int) -> None:
        if self._directory is None:
            return
        try:
            folder = str(self._directory.make())
            name = f"{safe_name(span)}.txt"
            text = missed_note(missed) + text_of(span, self._link)
            write_whole(os.path.join(folder, name), text.encode("utf-8", "backslashreplace"))  # noqa: PTH118 - see engine/
            self._remove_old(folder, name)
        except (OSError, RuntimeError, DirectoryRefused) as error:
            faults.count("dropped", "report file: it can't be written")
            # By its kind only, as a message may name another file each time.
            faults.tell_once(
                logging.WARNING,
                "Reports can't be written to %s (%s).",
                self._config.directory,
                error
                if isinstance(error, DirectoryRefused)
                else getattr(error, "strerror", None) or type(error).__name__,
            )

    def _remove_old(self, folder: str, newest: str) -> None:
        number, size = 0, 0
        # The newest one stays, however large it is.
        for _, name, length in sorted(_reports(folder), reverse=True):
            number, size = number + 1, size + length
            if name != newest and (number > self._config.max_count or size > self._config.max_bytes):
                _remove(folder, name)


def _reports(folder: str) -> Iterator[tuple[int, str, int]]:
    stale = time.time() - _STALE_SECONDS
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process was faster
                if _NAME.fullmatch(entry.name):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield status.st_mtime_ns, entry.name, status.st_size
                elif _TEMPORARY.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < stale:
                    _remove(folder, entry.name)  # of a process that died


def _remove(folder: str, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, name))  # noqa: PTH108, PTH118 - see engine/
