"""What the demo says at its end: what was found, where it is, what to try next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_introspect.demo.evidence import Evidence
from otel_introspect.demo.forwarding import Forwarder
from otel_introspect.demo.screen import Screen
from otel_introspect.demo.server import SERVICE
from otel_introspect.demo.visits import SlowVisit
from otel_introspect.exporters.styled import duration

_TRY_NEXT: Final = (
    ("in your own service, unchanged and started as always:", "pip install otel-introspect"),
    ("what it will do in your environment, and what is wrong there:", "otel-introspect doctor"),
    (
        "these trees in your own terminal:",
        "OTEL_TRACES_EXPORTER=introspect_console opentelemetry-instrument gunicorn yoursite.wsgi",
    ),
    ("one of these profiles as a picture, a page, a table:", "otel-introspect render {output} --format html --open"),
    ("the demo with another threshold:", "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=200 otel-introspect demo"),
)


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Args:
        problems: Requests that failed.
        log: What the shop's server wrote.
    """

    evidence: Evidence
    problems: list[str]
    output: Path
    forwarder: Forwarder | None
    log: str
    seconds: float


def conclude(screen: Screen, outcome: Outcome) -> int:
    """Say it; the exit status."""
    missing = outcome.evidence.missing()
    screen.say("\n=== What happened ===", "note")
    _say_what_was_found(screen, outcome, missing)
    screen.say(f"\nThe same {outcome.evidence.spans} spans as OTLP JSON lines: {outcome.output}")
    screen.say("Jaeger's UI takes that file as it is: Search, then Upload.")
    _say_where_sent(screen, outcome.forwarder)
    screen.say("\nWhat to try next:")
    for words, command in _TRY_NEXT:
        screen.say(f"  {words}")
        screen.say(f"      {command.format(output=outcome.output.name)}", "name")
    if missing and outcome.log:
        screen.say("\nThe log of the shop's server ends like this:", "error")
        screen.say(outcome.log, "dim")
    return 1 if missing else 0


def _say_what_was_found(screen: Screen, outcome: Outcome, missing: list[SlowVisit]) -> None:
    evidence = outcome.evidence
    wanted = len(evidence.visits)
    screen.say(f"{wanted - len(missing)} of {wanted} slow requests explained themselves, in {outcome.seconds:.0f} s.")
    left_alone = evidence.fast - evidence.fast_but_slow
    longest = f" The longest took {duration(evidence.longest_fast_ns)}." if evidence.fast else ""
    screen.say(f"{left_alone} of {evidence.fast} fast requests were left alone: nothing is on their spans.{longest}")
    for visit in missing:
        what = f"no stack shows `{visit.function}`"
        if evidence.without_trace(visit):
            what = "its trace did not arrive"
        screen.say(f"Missing: {visit.title} ({visit.route}): {what}.", "error")
    for problem in outcome.problems:
        screen.say(f"Failed: {problem}", "error")


def _say_where_sent(screen: Screen, forwarder: Forwarder | None) -> None:
    if forwarder is None:
        screen.say("\nTo see them in Jaeger, start it and run the demo again. It sends to localhost:4318 if something")
        screen.say("listens there, or to where it is told:")
        screen.say("      docker run --rm -p 16686:16686 -p 4318:4318 jaegertracing/jaeger:latest", "name")
        screen.say("      OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 otel-introspect demo", "name")
    elif forwarder.problem:
        screen.say(f"\nSending to {forwarder.to.url} failed: {forwarder.problem}", "error")
    else:
        screen.say(f"\nThey are at {forwarder.to.url}, too. If that is a Jaeger, look here:")
        screen.say(f"      {forwarder.to.jaeger(SERVICE)}", "name")
