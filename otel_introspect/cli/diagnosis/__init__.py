"""Find out what this package will do in an environment: plain data in, findings out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from otel_introspect.cli.diagnosis import export, launch, mail, profiles, recorder, records, settings
from otel_introspect.cli.diagnosis.finding import Finding, problem
from otel_introspect.cli.diagnosis.surroundings import Surroundings

Check = Callable[[Surroundings], Iterator[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    launch.python,
    launch.sdk,
    launch.launcher,
    launch.instrumentors,
    launch.django,
    export.exporters,
    mail.mail,
    mail.reports,
    export.sampler,
    export.limits,
    settings.watchdog,
    settings.observers,
    settings.evidence,
    records.records,
    profiles.profiles,
    recorder.recorder,
    settings.variables,
    settings.mistyped,
)
"""In the order in which somebody would look: what is installed, where it goes, what we do."""


def diagnose(here: Surroundings, checks: tuple[Check, ...] = CHECKS) -> Iterator[Finding]:
    """Every finding, as it is found. A check that fails is a finding, too, and does not stop the others."""
    for check in checks:
        try:
            yield from check(here)
        except Exception as error:  # noqa: BLE001 - whatever it is, the user asked what is wrong here and gets an answer
            yield problem(
                check.__name__,
                f"this check failed itself ({type(error).__name__}: {error}), so that nothing can be said about it.",
                "Please report this.",
            )
