"""Which spans leave the process, by which exporter, and how much of each the SDK lets through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis import reach
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.launch import chosen_configurator, has_otel_distro
from otel_introspect.cli.diagnosis.settings import evidence_config, watchdog_config
from otel_introspect.cli.diagnosis.surroundings import SAMPLERS, TELEMETRY, Surroundings, Telemetry, exporters_of

SAMPLER: Final = "OTEL_TRACES_SAMPLER"
SAMPLER_ARG: Final = "OTEL_TRACES_SAMPLER_ARG"
_CONFIG_FILES: Final = ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
_GRPC: Final = "otlp_proto_grpc"
_HTTP: Final = "otlp_proto_http"
_OTLP: Final[Mapping[str, str]] = {"grpc": _GRPC, "http/protobuf": _HTTP}
_PACKAGES: Final[Mapping[str, str]] = {
    _GRPC: "opentelemetry-exporter-otlp-proto-grpc",
    _HTTP: "opentelemetry-exporter-otlp-proto-http",
    "otlp_json_file": "opentelemetry-exporter-otlp-json-file",
    "zipkin": "opentelemetry-exporter-zipkin",
}
_WITHOUT_ENDPOINT: Final = (
    "console",
    "introspect_console",
    "introspect_email",
    "introspect_files",
    "introspect_logging",
    "otlp_json_file",
)
_CONSEQUENCE: Final = "the launcher gives up with a RuntimeError and instruments nothing"
_LENGTH: Final = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"
_EVENTS: Final = "OTEL_SPAN_EVENT_COUNT_LIMIT"
_ATTRIBUTES: Final = "OTEL_ATTRIBUTE_COUNT_LIMIT"
_ATTRIBUTES_OF_EVENTS: Final = "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"
_LIMITS: Final = (_LENGTH, _EVENTS, _ATTRIBUTES, _ATTRIBUTES_OF_EVENTS)
# The attributes of a stack_snapshot event at most: see the design's table.
_EVENT_ATTRIBUTES: Final = 15
# What MAX_ATTRIBUTE_BYTES can be at least.
_MIN_ATTRIBUTE_BYTES: Final = 64


def configuration_file(here: Surroundings) -> str:
    """The variable that makes a configuration file decide, if one is set that the installed SDK knows."""
    return next((name for name in _CONFIG_FILES if here.value(name) and _sdk_knows(here, name)), "")


def _sdk_knows(here: Surroundings, variable: str) -> bool:
    return f"{variable} = " in here.sdk_variables


def exporters(here: Surroundings) -> Iterator[Finding]:
    """Which exporters are chosen, and by whom; whether they are installed and their endpoints answer."""
    for name in _CONFIG_FILES:
        if here.value(name) and here.sdk_variables and not _sdk_knows(here, name):
            version = here.versions.get("opentelemetry-sdk", "")
            yield note("exporter", f"{name} is set, but opentelemetry-sdk {version} does not know it.")
    variable = configuration_file(here)
    if variable:
        yield _from_file(here, variable)
    elif chosen_configurator(here) is not None:  # without one no exporter is set up, which has been said already
        yield from _from_environment(here)


def _from_file(here: Surroundings, variable: str) -> Finding:
    path = Path(here.value(variable))
    if not here.reads_files:
        return problem(
            "exporter",
            f"{variable} is set, but opentelemetry-configuration is not installed: {_CONSEQUENCE}.",
            f"pip install opentelemetry-configuration, or unset {variable}",
        )
    if not (here.directory / path if here.directory else path).is_file():
        return problem(
            "exporter", f"{variable}={path}: there is no such file; {_CONSEQUENCE}.", "Correct the path or unset it."
        )
    return note(
        "exporter",
        f"{variable}={path} decides on provider, sampler, exporters and limits. It is not read here, and the variables "
        "for these do not count.",
    )


def _from_environment(here: Surroundings) -> Iterator[Finding]:
    missing: dict[str, list[Telemetry]] = {}
    for telemetry in TELEMETRY:
        names = exporter_names(here, telemetry)
        if isinstance(names, Finding):
            yield names
            return
        for name in names:
            if name not in here.names(exporters_of(telemetry)):
                missing.setdefault(name, []).append(telemetry)
            elif telemetry == "traces":
                yield from _exporter(here, name)
        if telemetry == "traces" and not names:
            yield _no_exporter(here)
    for name, wanted in missing.items():
        yield _not_installed(here, name, wanted)


def _exporter(here: Surroundings, name: str) -> Iterator[Finding]:
    variable = _variable("traces")
    chosen = here.value(variable)
    yield ok("exporter", f"{name} ({variable}={chosen})" if chosen else f"{name} ({variable} is otlp by default)")
    if name == _GRPC:
        yield reach.check(here, "grpc")
    elif name == _HTTP:
        yield reach.check(here, "http")
    elif name not in _WITHOUT_ENDPOINT:
        yield note("endpoint", f"where {name} sends to is not checked")


def _no_exporter(here: Surroundings) -> Finding:
    variable = _variable("traces")
    if variable not in here.environ:
        configurator = chosen_configurator(here)
        who = configurator.distribution if configurator else ""
        return note("exporter", f"{variable} is not set: {who or 'what sets up the provider'} decides, unseen by us.")
    said = "none" if here.value(variable) else "set but empty, which means none"
    return problem(
        "exporter",
        f"{variable} is {said}: no span leaves the process.",
        f"Unset {variable} for otlp, or {variable}=introspect_console to see the traces right here.",
    )


def exporter_names(here: Surroundings, telemetry: Telemetry) -> list[str] | Finding:
    """The entry points that the SDK will ask for, by its own rules; a finding if it would refuse."""
    variable = _variable(telemetry)
    default = "otlp" if has_otel_distro(here) else ""
    # Empty is not unset here: the distro's default comes only where there is no variable at all.
    names = here.environ.get(variable, default)
    if not names or names.lower().strip() == "none":
        return []
    protocol_variables = (f"OTEL_EXPORTER_OTLP_{telemetry.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    source = next((name for name in protocol_variables if here.value(name)), "")
    protocol = here.value(source) if source else "grpc"
    found = []
    for name in (each.strip() for each in names.split(",")):
        if name != "otlp":
            found.append(name)
        elif protocol in _OTLP:
            found.append(_OTLP[protocol])
        else:
            return problem(
                "exporter",
                f"{source}={protocol} is neither grpc nor http/protobuf: {_CONSEQUENCE}.",
                f"{source}=http/protobuf",
            )
    return found


def _variable(telemetry: Telemetry) -> str:
    return f"OTEL_{telemetry.upper()}_EXPORTER"


def _not_installed(here: Surroundings, name: str, wanted: list[Telemetry]) -> Finding:
    installed = here.names(exporters_of(wanted[0]))
    variables = [_variable(each) for each in wanted]
    asked = [f"{each}={here.value(each)}" for each in variables if here.value(each)]
    by_default = [each for each in variables if not here.value(each)]
    if by_default:
        asked.append(f"{', '.join(by_default)} (by default otlp)")
    message = f"{', '.join(asked)}: the exporter {name} is not installed for {', '.join(wanted)}, so {_CONSEQUENCE}."
    unwanted = [f"{each}=none" for each in variables if each != _variable("traces")]
    otherwise = f"; or, where you want none, {' and '.join(unwanted)}" if unwanted else ""
    if name == "none":
        remedy = f"none goes alone: {variables[0]}=none"
    elif name == _GRPC and _HTTP in installed and not here.value("OTEL_EXPORTER_OTLP_PROTOCOL"):
        remedy = f"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, as that exporter is installed{otherwise}"
    elif name in _PACKAGES:
        remedy = f"pip install {_PACKAGES[name]}{otherwise}"
    else:
        close = get_close_matches(name, installed, 1)
        remedy = f"Did you mean {close[0]}?" if close else f"Installed: {', '.join(installed) or 'none'}{otherwise}"
    return problem("exporter", message, remedy)


def sampler(here: Surroundings) -> Iterator[Finding]:
    """Whether the sampler lets the evidence through: a span that is not sampled is not watched."""
    name = here.value(SAMPLER)
    if not name or configuration_file(here):
        return
    known = here.names(SAMPLERS)
    if known and name not in known:
        close = get_close_matches(name.lower(), known, 1)
        yield problem(
            "sampler",
            f"{SAMPLER}={name} is not known; the default, parentbased_always_on, is in force.",
            f"Did you mean {close[0]}?" if close else f"One of {', '.join(known)}.",
        )
    elif name == "always_off":
        yield problem("sampler", f"{SAMPLER}=always_off: no span is sampled, so none is watched.", f"Unset {SAMPLER}.")
    elif name == "parentbased_always_off":
        yield note("sampler", f"{SAMPLER}={name}: only requests whose caller was sampled are watched.")
    elif name in ("traceidratio", "parentbased_traceidratio"):
        yield _ratio(here, name)
    else:
        yield ok("sampler", name)


def _ratio(here: Surroundings, name: str) -> Finding:
    raw = here.value(SAMPLER_ARG)
    try:
        ratio = float(raw)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        said = f"{SAMPLER_ARG}={raw}" if raw else f"{SAMPLER_ARG} is not set, which"
        return problem(
            "sampler", f"{SAMPLER}={name}, but {said} is not a number from 0 to 1.", f"For example {SAMPLER_ARG}=0.1"
        )
    if ratio == 0:
        return problem(
            "sampler", f"{SAMPLER_ARG}=0: no new trace is sampled, so no request is watched.", f"Raise {SAMPLER_ARG}."
        )
    if ratio == 1:
        return ok("sampler", f"{name}, every trace")
    return note(
        "sampler", f"{name} {ratio:g}: that share of the requests is watched; of the others a slow one leaves nothing."
    )


def limits(here: Surroundings) -> Iterator[Finding]:
    """Whether the SDK's limits cut our evidence: of a string it keeps the head, of events and attributes the newest."""
    if configuration_file(here):
        return
    refused = [name for name in _LIMITS if here.value(name) and _limit(here, name) is None]
    for name in refused:
        yield problem(
            "limits",
            f"{name}={here.value(name)} is not a whole number of 0 at least: {_CONSEQUENCE}.",
            "Correct it or unset it.",
        )
    if not refused:
        yield from _cuts(here)


def _cuts(here: Surroundings) -> Iterator[Finding]:
    evidence, watchdog = evidence_config(here.environ), watchdog_config(here.environ)
    length = _limit(here, _LENGTH)
    if length is not None and length < evidence.max_attribute_bytes:
        yield problem(
            "limits",
            f"{_LENGTH}={length} is less than our {evidence.max_attribute_bytes} bytes: the SDK keeps the head of a "
            "text, and a stack's innermost frames come last.",
            f"{env.OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES}={length}: then we drop the outermost frames instead."
            if length >= _MIN_ATTRIBUTE_BYTES
            else f"Raise it to {evidence.max_attribute_bytes} or unset it.",
        )
    events, count = watchdog.max_snapshots + watchdog.all_threads, _limit(here, _EVENTS)
    if count is not None and count < events:
        yield problem(
            "limits",
            f"{_EVENTS}={count} is less than the {events} events that a slow span may get: not all find room.",
            "Raise it or unset it.",
        )
    variable = _ATTRIBUTES_OF_EVENTS if here.value(_ATTRIBUTES_OF_EVENTS) else _ATTRIBUTES
    attributes = _limit(here, variable)
    if attributes is not None and attributes < _EVENT_ATTRIBUTES:
        yield problem(
            "limits",
            f"{variable}={attributes} is less than the {_EVENT_ATTRIBUTES} attributes of a snapshot: the stack may go.",
            f"{_ATTRIBUTES_OF_EVENTS}=128",
        )


def _limit(here: Surroundings, variable: str) -> int | None:
    try:
        limit = int(here.value(variable))
    except ValueError:
        return None
    return limit if limit >= 0 else None
