"""``otel-introspect ps``: every request that is in flight on this machine, with where it is."""

from __future__ import annotations

import json
import linecache
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from otel_introspect.cli.in_flight import SECOND, Process, Request, Seen, Sight, directories
from otel_introspect.config import RecorderConfig
from otel_introspect.engine.recorder_directory import DirectoryRefused
from otel_introspect.engine.recorder_layout import Frame
from otel_introspect.environment_variables import OTEL_PYTHON_INTROSPECT_RECORDER_DIR
from otel_introspect.exporters.styled import Glyphs, Line, Segment, Style, harmless, plain, shortened
from otel_introspect.exporters.terminal import glyphs_for, is_terminal, write

_NONE: Final = "none"
_HEADINGS: Final = ("PID", "AGE", "STATE", "REQUEST", "TRACE ID", "WHERE")
_NUMBERS: Final = ("PID", "AGE")
_MAX_REQUEST: Final = 60
_MINUTE: Final = 60
_HOUR: Final = 3600
_STYLES: Final[dict[str, Style]] = {"GIL held": "slow", "gone": "error", "stopped": "note", "awaiting": "dim"}


@click.command()
@click.argument("pid", type=click.IntRange(1), required=False)
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often, with --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line, for scripts.")
@click.option("--dir", "directory", type=click.Path(), default="", help="The directory of the flight recorders' files.")
def ps(*, pid: int | None, watch: bool, interval: float, as_json: bool, directory: str) -> None:
    """Show every request in flight, in every worker, with where it was last seen.

    With a PID, show the whole stacks of that process's requests, and what faulthandler has written about it.

    Reads what each process writes into its flight recorder: it needs no debugger's rights, and a process that is stuck,
    stopped or gone is shown as any other. Run it as the service's user. Root sees the services of all users.

    \b
    running   as far as it can be told
    awaiting  its task or greenlet waits for something
    GIL held  nothing else runs in that process: a call into C keeps the
              interpreter to itself; all requests of the process stand still
    stopped   somebody has stopped the process (SIGSTOP, a debugger)
    gone      its process was killed, and nobody has recovered it yet

    Where a request is is written down once a second, from the age of a second on.

    Exit status: 0 if it could look, also if nothing is in flight; 1 if it could not, or if there is no such PID.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    setting = RecorderConfig.from_env().directory
    if setting == _NONE and not directory:
        message = f"The flight recorder is off here ({OTEL_PYTHON_INTROSPECT_RECORDER_DIR}=none). Say where with --dir."
        raise click.ClickException(message)
    try:
        while True:
            sight, looked = _look(directory, setting)
            _show(sight, pid, looked, as_json=as_json, clear=watch)
            if not watch:
                break
            time.sleep(interval)
    except KeyboardInterrupt:
        if not watch:
            raise


def _look(directory: str, setting: str) -> tuple[Sight, list[Path]]:
    """What is there, and where it was looked for.

    Raises:
        click.ClickException: If it can't be looked there.
    """
    sight, looked, problems = Sight(), [], []
    for each in directories(directory, setting):
        try:
            sight.look(each)
            looked.append(each.path)
        except DirectoryRefused as error:
            problems.append(f"{error}.")
        except FileNotFoundError:
            problems.append(f"There is no {each.path}: no service has recorded a request there.")
        except PermissionError:
            problems.append(f"{each.path} can't be read: run this as the user of the service, or as root.")
        except (OSError, RuntimeError) as error:
            problems.append(f"It can't be looked for requests: {error}.")
    if not looked:
        where = "Say where else with --dir DIR or " + OTEL_PYTHON_INTROSPECT_RECORDER_DIR + "."
        none = "No service of any user has recorded a request here."
        raise click.ClickException(" ".join([*map(harmless, problems or [none]), where]))
    for problem in problems:
        click.echo(harmless(problem), err=True)
    return sight, looked


def _show(sight: Sight, pid: int | None, looked: list[Path], *, as_json: bool, clear: bool) -> None:
    chosen = [each for each in sight.processes if pid is None or each.record.pid == pid]
    if pid is not None and not chosen and not clear:
        where = ", ".join(map(str, looked))
        message = f"No process {pid} has a flight recorder in {harmless(where)}."
        raise click.ClickException(message)
    if as_json:
        click.echo(json.dumps(_as_data(chosen, sight)))
        return
    for path, why in sight.unreadable:
        click.echo(harmless(f"{path}: {why}."), err=True)
    glyphs = glyphs_for(sys.stdout)
    if pid is None:
        lines = list(_table([(process, request) for process in chosen for request in process.requests], glyphs))
    else:
        lines = [line for process in chosen for line in _whole(process)]
    if clear and is_terminal(sys.stdout):
        click.clear()
    write(sys.stdout, lines or [(Segment(_nothing(chosen), "dim"),)])


def _nothing(processes: list[Process]) -> str:
    alive = sum(process.alive for process in processes)
    return f"No request is in flight ({alive} process{'' if alive == 1 else 'es'} recording)."


# --- The table ------------------------------------------------------------------------------------------------------


def _table(requests: list[tuple[Process, Request]], glyphs: Glyphs) -> Iterator[Line]:
    if not requests:
        return
    rows = [_row(process, request, glyphs) for process, request in requests]
    widths = [max(len(heading), *(len(row[at].text) for row in rows)) for at, heading in enumerate(_HEADINGS)]
    width = os.get_terminal_size(sys.stdout.fileno()).columns if is_terminal(sys.stdout) else 0
    for row in [tuple(Segment(heading, "dim") for heading in _HEADINGS), *rows]:
        line: list[Segment] = []
        for heading, segment, column in zip(_HEADINGS, row, widths, strict=True):
            text, style = segment
            is_last = heading == _HEADINGS[-1]
            if is_last and width:
                text = shortened(text, max(width - len(plain(tuple(line))), 1), glyphs)
            padded = text if is_last else text.rjust(column) if heading in _NUMBERS else text.ljust(column)
            line.append(Segment(padded if is_last else f"{padded}  ", style))
        yield tuple(line)


def _row(process: Process, request: Request, glyphs: Glyphs) -> Line:
    frame = None if request.seen is None else request.seen.innermost()
    return (
        Segment(str(process.record.pid)),
        Segment(_duration(request.age)),
        Segment(request.state, _STYLES.get(request.state, "plain")),
        Segment(shortened(harmless(request.title), _MAX_REQUEST, glyphs), "name"),
        Segment(f"{request.span.trace_id:032x}", "dim"),
        Segment("-" if frame is None else _place(frame), "plain" if frame is None else "application"),
    )


def _place(frame: Frame) -> str:
    return harmless(f"{frame.function} ({frame.file}:{frame.line})")


def _duration(nanoseconds: int) -> str:
    """A time for people: ``0.4s``, ``12.3s``, ``3m04s``, ``2h05m``."""
    seconds = nanoseconds / SECOND
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)}m{int(seconds % _MINUTE):02d}s"
    return f"{int(seconds // _HOUR)}h{int(seconds % _HOUR // _MINUTE):02d}m"


# --- One process ----------------------------------------------------------------------------------------------------


def _whole(process: Process) -> Iterator[Line]:
    record = process.record
    now = time.time_ns()
    count = len(process.requests)
    said = [f"process {record.pid}"]
    if process.service:
        said.append(process.service)
    said.append("alive" if process.alive else "gone")
    said.append(f"{count} request{'' if count == 1 else 's'} in flight")
    if process.last_beat is not None and count:
        said.append(f"last sign of life {_duration(process.last_beat)} ago")
    if record.overflowed:
        said.append(f"{record.overflowed} found no room")
    yield (Segment(harmless(", ".join(said)), "name"),)
    yield (Segment(harmless(str(record.path)), "dim"),)
    for request in process.requests:
        yield ()
        yield from _one(process, request, now)
    if process.dump:
        yield ()
        yield (Segment(f"All threads, by faulthandler {_duration(max(now - process.dumped, 0))} ago", "name"),)
        for thread_id, frames in process.dump.items():
            yield (Segment(f"Thread {thread_id:#x} (most recent call last):"),)
            yield from _frames(process, frames)


def _one(process: Process, request: Request, now: int) -> Iterator[Line]:
    span = request.span
    yield (
        Segment(harmless(request.title), "name"),
        Segment(f"  {_duration(request.age)}  "),
        Segment(request.state, _STYLES.get(request.state, "plain")),
    )
    ids = f"  trace id {span.trace_id:032x}, span id {span.span_id:016x}"
    yield (Segment(ids if span.parent_id is None else f"{ids}, parent {span.parent_id:016x}", "dim"),)
    for name, value in sorted(span.attributes.items()):
        yield (Segment(f"  {harmless(name)}={harmless(value)}", "dim"),)
    seen = request.seen
    if seen is None:
        yield (Segment("  not looked at yet", "dim"),)
        return
    yield (Segment(f"  seen {_duration(max(now - seen.taken, 0))} ago by {_by(seen)} (most recent call last):"),)
    yield from _frames(process, seen.frames)


def _by(seen: Seen) -> str:
    return f"{seen.observer}, {seen.task_state}" if seen.task_state else seen.observer


def _frames(process: Process, frames: tuple[Frame, ...]) -> Iterator[Line]:
    for function, file, line in reversed(frames):
        place = f'  File "{file}", line {line}, in {function}'
        yield (Segment(f"  {harmless(place)}"),)
        source = _source(process, file, line)
        if source:
            yield (Segment(f"      {harmless(source)}", "source"),)


def _source(process: Process, file: str, line: int) -> str:
    """The line's text, where the file is here and the process is this user's own: else anything could be named."""
    try:
        is_own = process.record.path.stat().st_uid == os.geteuid()
        return linecache.getline(file, line).strip() if is_own and Path(file).is_file() else ""
    except (OSError, ValueError):
        return ""


# --- For scripts ----------------------------------------------------------------------------------------------------


def _as_data(processes: list[Process], sight: Sight) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "requests": [_request_data(process, request, now) for process in processes for request in process.requests],
        "processes": [_process_data(process, now) for process in processes],
        "unreadable": [{"file": harmless(path), "why": harmless(why)} for path, why in sight.unreadable],
    }


def _request_data(process: Process, request: Request, now: int) -> dict[str, Any]:
    span, seen = request.span, request.seen
    frame = None if seen is None else seen.innermost()
    return {
        "pid": process.record.pid,
        "service": process.service,
        "state": request.state,
        "age_seconds": round(request.age / SECOND, 3),
        "name": span.name,
        "method": request.method,
        "route": request.route,
        "trace_id": f"{span.trace_id:032x}",
        "span_id": f"{span.span_id:016x}",
        "parent_id": None if span.parent_id is None else f"{span.parent_id:016x}",
        "attributes": span.attributes,
        "where": None if frame is None else _frame_data(frame),
        "seen_seconds_ago": None if seen is None else round(max(now - seen.taken, 0) / SECOND, 3),
        "observer": None if seen is None else seen.observer,
        "task_state": None if seen is None else seen.task_state,
        "stack": [] if seen is None else [_frame_data(each) for each in seen.frames],
    }


def _process_data(process: Process, now: int) -> dict[str, Any]:
    dump = process.dump or {}
    return {
        "pid": process.record.pid,
        "alive": process.alive,
        "resource": process.record.resource,
        "file": str(process.record.path),
        "requests": len(process.requests),
        "without_room": process.record.overflowed,
        "last_sign_of_life_seconds_ago": None if process.last_beat is None else round(process.last_beat / SECOND, 3),
        "dumped_seconds_ago": round(max(now - process.dumped, 0) / SECOND, 3) if dump else None,
        "threads": [
            {"thread_id": thread_id, "stack": [_frame_data(each) for each in frames]}
            for thread_id, frames in dump.items()
        ],
    }


def _frame_data(frame: Frame) -> dict[str, Any]:
    return {"function": frame.function, "file": frame.file, "line": frame.line}
