"""``otel-introspect render``: a profile in the format that somebody wants, on the terminal, in a file or opened."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Final, cast

import click

from otel_introspect.errors import IntrospectError
from otel_introspect.profiling.formats import FORMATS, KINDS, Format, Kind
from otel_introspect.profiling.formats import render as rendered
from otel_introspect.profiling.reading import find

_STANDARD_OUTPUT: Final = "-"
_IN_A_BROWSER: Final = frozenset({"html", "svg", "pdf"})
_MOST_OF_A_NAME: Final = 999


@click.command()
@click.argument("profile")
@click.option(
    "--format",
    "-f",
    "format_",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="What to make of it.",
)
@click.option("--output", "-o", metavar="FILE", help="Where to write it; an existing file is replaced. - is stdout.")
@click.option("--id", "id_", metavar="ID", help="Which, if a trace has several: a profile's, trace's or span's id.")
@click.option("--open", "open_", is_flag=True, help="Open it: in the browser, or with the program for such files.")
def render(*, profile: str, format_: str, output: str | None, id_: str | None, open_: bool) -> None:
    """Show a profile, or make another format of it.

    PROFILE is one that the service has stored: its file <id>.pyisession.json, the .html beside it, a URL of one of
    these, or the id alone, if OTEL_PYTHON_INTROSPECT_PROFILER_STORE says where. Or it is a file of OTLP JSON with a
    trace that carries profiles; where that does not say where the whole is stored, the profile is rebuilt from the text
    on the span. All of these may be packed by gzip.

    \b
    text        the tree of calls
    html        pyinstrument's page, with a timeline
    json        pyinstrument's session, to be loaded again
    speedscope  for https://www.speedscope.app
    pstats      for Python's pstats, snakeviz and others
    dot         the call graph; needs gprof2dot
    svg, pdf    the call graph, drawn; needs gprof2dot and Graphviz

    Text is printed. All else goes to a file in the current directory, named after the profile, which replaces none:
    if there is one of that name, a number is added. With --open it goes to a temporary file.

    Exit status: 0 if it was rendered, 1 if not, 2 if the command is wrong.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    kind = KINDS[cast("Format", format_)]
    if open_ and output == _STANDARD_OUTPUT:
        msg = "--open needs a file: leave --output out, or name one."
        raise click.UsageError(msg)
    if output == _STANDARD_OUTPUT and kind.binary and _is_terminal():
        msg = f"{format_} is binary and nothing for a terminal: name a file, or leave --output out."
        raise click.UsageError(msg)
    try:
        found = find(profile, profile_id=id_)
        contents = rendered(found.session, cast("Format", format_))
    except IntrospectError as error:
        raise click.ClickException(str(error)) from error
    for note in found.notes:
        click.echo(note, err=True)
    if output == _STANDARD_OUTPUT or (output is None and format_ == "text" and not open_):
        _print(contents, kind)
        return
    try:
        if output is not None:
            path = Path(output)
            path.write_bytes(contents)
        else:
            path = _temporary_file(contents, found.name, kind) if open_ else _new_file(contents, found.name, kind)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        msg = f"{output or 'A file in the current directory'} cannot be written: {error}"
        raise click.ClickException(msg) from error
    click.echo(f"{'Opening' if open_ else 'Wrote'} {path}", err=True)
    if open_:
        _open(path, format_)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print(contents: bytes, kind: Kind) -> None:
    """Write to stdout: bytes as they are, text in the encoding that a terminal has."""
    if kind.binary or not _is_terminal():
        click.echo(contents, nl=False)
        return
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(contents.decode().encode(encoding, "backslashreplace").decode(encoding), nl=False)


def _temporary_file(contents: bytes, name: str, kind: Kind) -> Path:
    """A file that only this user can read; it stays, as nobody says when the viewer has read it."""
    descriptor, path = tempfile.mkstemp(prefix=f"{name}-", suffix=kind.suffix)
    with os.fdopen(descriptor, "wb") as file:
        file.write(contents)
    return Path(path)


def _new_file(contents: bytes, name: str, kind: Kind) -> Path:
    for number in range(1, _MOST_OF_A_NAME + 1):
        path = Path(f"{name}{f'-{number}' if number > 1 else ''}{kind.suffix}")
        try:
            with path.open("xb") as file:
                file.write(contents)
        except FileExistsError:
            continue
        return path
    msg = f"no name is free, up to number {_MOST_OF_A_NAME}"
    raise FileExistsError(msg)


def _open(path: Path, format_: str) -> None:
    """Let the desktop decide; where there is none, Python knows some browsers.

    Raises:
        click.ClickException: If nobody opens it.
    """
    if click.launch(str(path)) == 0:
        return
    if format_ in _IN_A_BROWSER and webbrowser.open(path.resolve().as_uri()):
        return
    msg = f"No program was found to open it. It is in {path}"
    raise click.ClickException(msg)
