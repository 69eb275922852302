"""``otel-introspect migrate``: the variables for what the settings of dogslow and its kin say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import click

from otel_introspect.cli.migration.counterparts import Advice
from otel_introspect.cli.migration.reading import Unreadable, sources
from otel_introspect.cli.migration.traces import NotPythonError, Traces
from otel_introspect.cli.migration.writing import FORMATS
from otel_introspect.exporters.styled import harmless

_WIDTH = 110


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@click.option(
    "--format",
    "form",
    type=click.Choice(sorted(FORMATS)),
    default="shell",
    show_default=True,
    help="How the variables are written: for a shell, `docker run --env-file`, a systemd unit, or a Compose file.",
)
def migrate(*, paths: tuple[Path, ...], form: str) -> None:
    """Print the variables for the settings of dogslow and geordi in PATH, and what is left to do by hand.

    PATH is a settings file, several of them in the order in which they take effect, or a directory, all of whose Python
    files and templates are looked at. Nothing is imported, executed or changed: what only running a file would tell is
    printed as a comment, to be completed.

    Also found: imports of interruptingcow, and where templates load django-timelimit's tag.

    \b
    otel-introspect migrate shop/settings.py >> .envrc
    otel-introspect migrate --format env shop/settings/ > slow.env

    Exit status: 0 if there was something; 1 if there was nothing, or a file that was named can't be read.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    traces, count, has_failed = Traces(), 0, False
    for each in sources(paths):
        if isinstance(each, Unreadable):
            has_failed |= each.is_named
            click.echo(harmless(f"{each.path}: {each.why}."), err=True)
            continue
        count += 1
        try:
            traces.look(each)
        except NotPythonError as error:
            has_failed |= each.is_named
            click.echo(harmless(f"{each.path}: {error}."), err=True)
    if traces:
        for line in _page(Advice(traces), form):
            click.echo(line)
    elif not has_failed:
        where = ", ".join(map(str, paths))
        found = f"{count} file{'' if count == 1 else 's'} read"
        click.echo(
            harmless(
                f"Nothing of dogslow, geordi, interruptingcow or django-timelimit in {where} ({found})."
                " Name the file in which DOGSLOW_... or GEORDI_... are set, or the directory of the project."
            ),
            err=True,
        )
    if has_failed or not traces:
        raise click.exceptions.Exit(1)


def _page(advice: Advice, form: str) -> Iterator[str]:
    write = FORMATS[form]
    for each in advice.variables:
        yield from _comment(f"{each.why}.")
        line = write(each.name, each.value)
        yield line if each.is_sure else f"# {line}"
    if advice.tasks:
        if advice.variables:
            yield ""
        yield "# To do by hand:"
        for task in advice.tasks:
            yield from _comment(f"- {task.text}.", "  ")


def _comment(text: str, indent: str = "") -> list[str]:
    """*text* as comments, from which nothing gets out: a file's name may have line breaks in it."""
    return [f"# {each}" for each in wrap(harmless(text), _WIDTH, subsequent_indent=indent, break_on_hyphens=False)]
