"""``otel-introspect doctor``: says what was found out, to a person or to a script."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import click

from otel_introspect.cli.diagnosis import diagnose
from otel_introspect.cli.diagnosis.finding import Finding, Level
from otel_introspect.cli.diagnosis.surroundings import OUR_DISTRIBUTION, gather

_SIGNS: Final[Mapping[Level, str]] = {Level.OK: "✓", Level.NOTE: "•", Level.PROBLEM: "✗"}
_PLAIN_SIGNS: Final[Mapping[Level, str]] = {Level.OK: "+", Level.NOTE: "-", Level.PROBLEM: "x"}
_COLOURS: Final[Mapping[Level, str]] = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}
_MAX_WIDTH: Final = 120
_MIN_WIDTH: Final = 40


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def doctor(*, as_json: bool) -> None:
    """Say what an application will get that is started here with opentelemetry-instrument.

    Looks at what is installed and at the environment variables, and knocks at the exporter's endpoint (2 seconds at
    most, no span is sent). Nothing is instrumented and nothing of the application is imported. Run it where, and with
    the environment with which, the application is started. Flags of the launcher count only if it starts the doctor:
    opentelemetry-instrument FLAGS otel-introspect doctor

    \b
    ok       as it should be
    note     worth knowing; a slow request still gets its evidence
    problem  a slow request does not get its evidence, or it does not
             arrive, or a setting does not do what it says: OpenTelemetry
             missing or disabled, one of our instrumentors disabled, the
             watchdog off, no observer possible, Django's settings not
             found, nothing sampled, no exporter or one that is not
             installed, an endpoint that does not answer, a limit of the
             SDK that cuts stacks, no place for the flight recorder, mails
             without an address or a server, reports without a directory,
             a variable of ours that is mistyped, whose value is not
             understood, or that nobody reads

    Exit status: 0 if there is no problem, 1 if there is one.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    here = gather(os.environ)
    found: list[Finding] = []
    if as_json:
        found.extend(diagnose(here))
        _print_json(here.versions.get(OUR_DISTRIBUTION), found)
    else:
        found.extend(_print(diagnose(here)))
    if any(each.level is Level.PROBLEM for each in found):
        raise click.exceptions.Exit(1)


def _print_json(version: str | None, found: list[Finding]) -> None:
    counts = Counter(each.level for each in found)
    report = {
        "version": version,
        "ok": not counts[Level.PROBLEM],
        "problems": counts[Level.PROBLEM],
        "notes": counts[Level.NOTE],
        "findings": [
            {"level": each.level.value, "topic": each.topic, "message": each.message, "remedy": each.remedy}
            for each in found
        ],
    }
    click.echo(json.dumps(report, indent=2))


def _print(found: Iterator[Finding]) -> Iterator[Finding]:
    """Print each finding as it comes, since an endpoint may take its two seconds, and a summary at the end."""
    page = _Page()
    counts: Counter[Level] = Counter()
    for each in found:
        page.show(each)
        counts[each.level] += 1
        yield each
    page.close(counts)


class _Page:
    """Lines that fit where they go: a terminal's width and colours, a file's plain text, any stream's encoding."""

    _TOPIC_WIDTH: Final = len("instrumentors")

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._colour = terminal and not os.environ.get("NO_COLOR")
        # A line in a file stays one line, so that grep finds all of it.
        self._width = max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size().columns)) if terminal else 0
        self._encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        self._signs = _SIGNS if self._can_say("".join(_SIGNS.values())) else _PLAIN_SIGNS

    def show(self, finding: Finding) -> None:
        margin = " " * (self._TOPIC_WIDTH + 5)
        sign = self._styled(self._signs[finding.level], finding.level)
        first, *more = self._wrapped(finding.message, len(margin))
        click.echo(f"  {sign} {finding.topic:<{self._TOPIC_WIDTH}} {first}")
        for line in more:
            click.echo(margin + line)
        if finding.remedy:
            first, *more = self._wrapped(finding.remedy, len(margin) + 3)
            click.echo(f"{margin}-> {first}")
            for line in more:
                click.echo(f"{margin}   {line}")

    def close(self, counts: Counter[Level]) -> None:
        problems, notes = counts[Level.PROBLEM], counts[Level.NOTE]
        noted = f" {notes} note{'s' if notes != 1 else ''}." if notes else ""
        click.echo()
        if problems:
            said = self._styled(f"{problems} problem{'s' if problems != 1 else ''}.", Level.PROBLEM)
            click.echo(f"{said}{noted}")
        else:
            said = self._styled("No problem:", Level.OK)
            click.echo(f"{said} a slow request here will explain itself.{noted}")

    def _wrapped(self, text: str, margin: int) -> list[str]:
        text = self._harmless(text)
        if not self._width:
            return [text]
        # Long words are URLs, paths and variables: to be copied, not broken.
        return textwrap.wrap(text, self._width - margin, break_long_words=False, break_on_hyphens=False) or [""]

    def _styled(self, text: str, level: Level) -> str:
        return click.style(text, fg=_COLOURS[level], bold=level is Level.PROBLEM) if self._colour else text

    def _can_say(self, text: str) -> bool:
        try:
            text.encode(self._encoding)
        except (UnicodeError, LookupError):
            return False
        return True

    def _harmless(self, text: str) -> str:
        """*text* as one line: what comes from an environment may hold control characters and undecodable bytes."""
        shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
        return shown if self._can_say(shown) else shown.encode("ascii", "backslashreplace").decode()
