"""``otel-introspect recover``: sends off the requests of processes that are dead, and says which they were."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from opentelemetry import trace
from opentelemetry._logs import get_logger_provider

from otel_introspect.config import IntrospectConfig
from otel_introspect.engine.recorder_directory import DirectoryRefused, RecorderDirectory
from otel_introspect.engine.stack_text import one_line
from otel_introspect.introspection import active

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: TID251 - to say what is shown

    from otel_introspect.processors.recovery import Recovered, RecoveredProcess

_PERIOD_SECONDS: Final = 2.0
_NANOSECONDS: Final = 1e9


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the flight recorders' files are; OTEL_PYTHON_INTROSPECT_RECORDER_DIR otherwise, or its default.",
)
@click.option("--follow", is_flag=True, help="Go on doing so, every 2 seconds, until told to stop.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each dead process, one a line.")
def recover(*, directory: Path | None, follow: bool, as_json: bool) -> None:
    """Send off the requests that were running in processes that are dead.

    A service does so itself, when a process of it starts or is at work. This is for where none is left: for a sidecar,
    for a container's entrypoint, for a machine that was taken out of service. Any number may run at the same time, also
    beside the service: each request is sent once.

    The spans go to the exporter that OTEL_TRACES_EXPORTER and the other variables name, as opentelemetry-instrument
    would set it up here. What can't be sent stays where it is, for another attempt.

    Exit status: 0 if all was sent, or there was nothing to send; 1 if not.
    """
    # Under the launcher we watch this process as any other: then only one of the two is to recover.
    watching = active()
    if watching is not None:
        watching.recovers = False
    config = IntrospectConfig.from_env()
    setting = str(directory) if directory is not None else config.recorder.directory
    if setting == "none":
        msg = "The flight recorder is off (OTEL_PYTHON_INTROSPECT_RECORDER_DIR=none); name a directory with --dir."
        raise click.ClickException(msg)
    files = RecorderDirectory(setting)
    with_logs = "log" in config.evidence.events
    provider = _provider(with_logs=with_logs)
    # Only now: who loads the SDK before its configurator has been there may get another.
    from otel_introspect.processors.recovery import ExportersOutlet, Recovery, records_of

    outlet = ExportersOutlet(provider)
    if not outlet.is_open():
        msg = (
            "There is no exporter to send to: OTEL_TRACES_EXPORTER and the variables that belong to it are to be set as"
            " they are for the service. `otel-introspect doctor` says what is wrong."
        )
        raise click.ClickException(msg)
    recovery = Recovery(files, config.evidence, outlet, records=records_of(config.evidence, get_logger_provider))
    page = _Page(as_json=as_json)
    unsent = 0
    try:
        for _ in _rounds(follow=follow):
            _check(files)
            unsent = page.show(recovery.run())
    finally:
        provider.shutdown()
        if with_logs:
            _shut_down(get_logger_provider())
    page.close(files.path, follow=follow)
    if unsent:
        raise click.exceptions.Exit(1)


def _provider(*, with_logs: bool) -> Any:  # noqa: ANN401 - the SDK's, or whatever a configurator sets up
    """The tracer provider that the launcher would set up, or has set up already."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        msg = "OpenTelemetry's SDK is switched off here (OTEL_SDK_DISABLED=true), so nothing is sent."
        raise click.ClickException(msg)
    if not hasattr(trace.get_tracer_provider(), "add_span_processor"):
        os.environ["OTEL_METRICS_EXPORTER"] = "none"
        if not with_logs:
            os.environ["OTEL_LOGS_EXPORTER"] = "none"
        try:
            from opentelemetry.instrumentation.auto_instrumentation import _load

            # What it logs, with a traceback, is raised as well.
            logging.getLogger(_load.__name__).disabled = True
            launcher: Any = _load  # which is untyped
            launcher._load_distro().configure()  # noqa: SLF001 - what it does itself, all but the instrumentors
            launcher._load_configurators()  # noqa: SLF001 - as above
        except Exception as error:
            msg = f"The exporter can't be set up ({error}). `otel-introspect doctor` says what is wrong."
            raise click.ClickException(msg) from error
    provider = trace.get_tracer_provider()
    if not hasattr(provider, "shutdown"):
        msg = "OpenTelemetry's SDK is not set up here: pip install opentelemetry-distro."
        raise click.ClickException(msg)
    return provider


def _shut_down(provider: Any) -> None:  # noqa: ANN401 - as above
    shutdown = getattr(provider, "shutdown", None)  # which the API's own provider does not have
    if shutdown is not None:
        shutdown()


def _check(files: RecorderDirectory) -> None:
    try:
        files.check()
    except DirectoryRefused as error:
        msg = f"{error}."
        raise click.ClickException(msg) from error
    except FileNotFoundError:
        pass  # nothing was recorded there, and somebody may yet do so
    except OSError as error:
        msg = f"{files.path}: {error.strerror}."
        raise click.ClickException(msg) from error


def _rounds(*, follow: bool) -> Iterator[None]:
    """Once; or until a POSIX signal says that it is enough, which never comes in the midst of one."""
    if not follow:
        yield
        return
    told: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, _frame: told.append(number))
    while not told:
        yield
        end = time.monotonic() + _PERIOD_SECONDS
        while not told and time.monotonic() < end:
            time.sleep(0.1)


class _Page:
    """Says what was recovered, as text or as JSON lines."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._sent = 0
        self._processes = 0
        self._unsent: set[tuple[int, int]] = set()

    def show(self, recovered: Recovered) -> int:
        """Show one round; returns how many requests of it could not be sent."""
        unsent = 0
        for process in recovered.processes:
            if process.sent:
                self._processes += 1
                self._sent += len(process.spans)
                self._show(process)
            else:
                unsent += len(process.spans)
                self._complain(process)
        for path, why in recovered.refused:
            if self._as_json:
                click.echo(json.dumps({"file": str(path), "refused": why}))
        sys.stdout.flush()
        return unsent

    def _show(self, process: RecoveredProcess) -> None:
        if self._as_json:
            click.echo(json.dumps(_as_json(process)))
            return
        click.echo(f"{_whose(process)}: sent {_requests(len(process.spans))}")
        for span in process.spans:
            context = span.get_span_context()
            trace_id = "" if context is None else f"{context.trace_id:032x}"
            click.echo(f"  {trace_id}  {_seconds(span):8.1f} s  {one_line(span.name)}")

    def _complain(self, process: RecoveredProcess) -> None:
        if self._as_json:
            click.echo(json.dumps(_as_json(process)))
        key = (process.pid, len(process.spans))
        if key not in self._unsent:  # not at each attempt
            self._unsent.add(key)
            count = _requests(len(process.spans))
            click.echo(f"{_whose(process)}: {count} could not be sent, and stay where they are", err=True)

    def close(self, path: Path, *, follow: bool) -> None:
        if not self._as_json and not self._processes and not self._unsent and not follow:
            click.echo(f"Nothing to recover in {path}.")


def _whose(process: RecoveredProcess) -> str:
    service = process.resource.get("service.name")
    return f"pid {process.pid}" + (f" of {one_line(str(service))}" if service else "")


def _requests(count: int) -> str:
    return f"{count} request{'s' if count != 1 else ''}"


def _seconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / _NANOSECONDS


def _as_json(process: RecoveredProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "service": process.resource.get("service.name"),
        "sent": process.sent,
        "requests": [
            {
                "trace_id": "" if context is None else f"{context.trace_id:032x}",
                "span_id": "" if context is None else f"{context.span_id:016x}",
                "name": span.name,
                "start": (span.start_time or 0) / _NANOSECONDS,
                "seconds": round(_seconds(span), 3),
            }
            for span in process.spans
            for context in [span.get_span_context()]
        ],
    }
