"""Whether evidence that is to go into log records leaves the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis.export import configuration_file, exporter_names
from otel_introspect.cli.diagnosis.finding import Finding, Level, note, ok, problem
from otel_introspect.cli.diagnosis.launch import chosen_configurator, has_otel_distro
from otel_introspect.cli.diagnosis.settings import evidence_config
from otel_introspect.cli.diagnosis.surroundings import Surroundings, exporters_of

_VARIABLE: Final = "OTEL_LOGS_EXPORTER"
_EVENTS: Final = env.OTEL_PYTHON_INTROSPECT_EVENTS
# These of ours look at a span's events, and at nothing else.
_READ_SPANS: Final = ("introspect_console", "introspect_email", "introspect_files", "introspect_logging")
_BRIDGE: Final = env.OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE


def records(here: Surroundings) -> Iterator[Finding]:
    """Whether log records are asked for, and which exporter takes them."""
    config = evidence_config(here.environ)
    if "log" in config.events:
        found = _records(here)
        yield found
        # Where nobody takes the records the evidence is on the span, and this would contradict what was just said.
        if "span" not in config.events and not config.events_bridge and found.level is not Level.PROBLEM:
            names = exporter_names(here, "traces")
            blind = [] if isinstance(names, Finding) else [each for each in names if each in _READ_SPANS]
            yield note(
                "records",
                f"{_EVENTS}=log: evidence is in log records only, which"
                f" {' and '.join(['Jaeger', *blind])} {'do' if blind else 'does'} not show.",
                f"{_EVENTS}=span,log for both",
            )
    elif config.events_bridge:
        yield note("records", f"{_BRIDGE}=true puts the events of others on spans; evidence goes there anyway.")


def _records(here: Surroundings) -> Finding:
    if configuration_file(here):
        return note("records", "the configuration file decides whether log records are exported; it is not read here")
    names = exporter_names(here, "logs")
    if isinstance(names, Finding):
        return names
    if names:
        missing = [each for each in names if each not in here.names(exporters_of("logs"))]
        if missing:
            return problem(
                "records",
                f"log records would go to {', '.join(missing)}, which is not installed.",
                f"pip install it, or correct {_VARIABLE}",
            )
        return ok("records", f"log records go to {', '.join(names)}")
    if _VARIABLE not in here.environ and not has_otel_distro(here) and chosen_configurator(here) is not None:
        return note("records", f"{_VARIABLE} is not set: what sets up the provider decides, unseen by us.")
    return problem(
        "records",
        f"{_EVENTS} asks for log records, but {_VARIABLE} names no exporter: evidence goes on the span instead.",
        f"{_VARIABLE}=otlp; OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED is not needed",
    )
