"""Whether somebody answers at an endpoint, and whether it is the one that the exporter needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from otel_introspect.cli.diagnosis import probe
from otel_introspect.cli.diagnosis.endpoint import SECONDS, TOPIC, TRACES, Endpoint, Protocol, resolve
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.probe import Answer, Target
from otel_introspect.cli.diagnosis.settings import without_password
from otel_introspect.cli.diagnosis.surroundings import Surroundings

# Starting the process that knocks comes on top of its time, and on a busy machine is slow.
_START_SECONDS: Final = 3.0
WAITING_FOR: Final[Mapping[probe.Step, str]] = {
    "resolve": "the name server does not answer",
    "connect": "no answer to the attempt to connect",
    "tls": "it accepts the connection, but no TLS handshake comes about",
    "request": "it accepts the connection, but does not answer the request",
}
"""What a step that has not come to an end was waiting for."""


def check(here: Surroundings, protocol: Protocol) -> Finding:
    """Whether the endpoint of the OTLP exporter answers. Takes ``SECONDS`` at most, and sends no span."""
    found = resolve(here, protocol)
    return found if isinstance(found, Finding) else verdict(found, ask(found.target))


def ask(target: Target) -> Answer | probe.Step | None:
    """Knock, in a process of its own: what came of it; the step at which time was up; None if it said nothing.

    Raises:
        OSError: If no process can be started.
    """
    # Isolated and without site: no sitecustomize, which under the launcher would instrument the probe as well.
    command = [sys.executable, "-I", "-S", probe.__file__]
    try:
        said = subprocess.run(  # noqa: S603 - our own file; what comes from the environment goes in by standard input
            command,
            input=json.dumps(asdict(target)).encode(),
            capture_output=True,
            timeout=target.seconds + _START_SECONDS,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
    lines = [json.loads(line) for line in said.splitlines()]
    if not lines:
        return None
    step: probe.Step | None = lines[-1].get("at")
    return step or Answer(**lines[-1])


def verdict(endpoint: Endpoint, answer: Answer | probe.Step | None) -> Finding:
    """What an answer means for the spans that are to go there."""
    if answer is None:
        return note(
            TOPIC, f"{endpoint.url} could not be checked: the process that was to knock there ended without a word."
        )
    if isinstance(answer, str):
        return _unreachable(endpoint, f"{WAITING_FOR[answer]} within {SECONDS:g} s")
    if answer.outcome in ("resolve", "connect"):
        return _unreachable(endpoint, answer.detail)
    if answer.outcome == "tls":
        return _without_tls(endpoint, answer)
    return _http(endpoint, answer) if answer.outcome == "http" else _other(endpoint, answer)


def _other(endpoint: Endpoint, answer: Answer) -> Finding:
    if answer.outcome == "foreign":
        return problem(
            TOPIC,
            f"{endpoint.url} does not answer in HTTP/2, which gRPC is. Probably it is a collector's port for "
            "http/protobuf.",
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or the collector's gRPC port (usually 4317) in "
            f"{endpoint.variable}",
        )
    if answer.outcome == "request":
        return problem(
            TOPIC,
            f"{endpoint.url} accepts the connection, but does not answer an HTTP/1 request ({answer.detail}). "
            "Probably it is a collector's port for gRPC.",
            f"OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or the collector's HTTP port (usually 4318) in {endpoint.variable}, or "
            "https:// there if it speaks TLS",
        )
    if endpoint.proxy:
        return note(TOPIC, f"{endpoint.url} is reached through the proxy {endpoint.proxy}; only that was checked.")
    if answer.outcome == "http2":
        return ok(TOPIC, f"{endpoint.url} answers in HTTP/2, as gRPC does")
    return ok(TOPIC, f"{endpoint.url} accepts connections")


def _unreachable(endpoint: Endpoint, why: str) -> Finding:
    via = f" by the proxy {endpoint.proxy}" if endpoint.proxy else ""
    given = f"set by {endpoint.source}" if endpoint.source else "the default"
    return problem(
        TOPIC,
        f"{endpoint.url} ({given}) cannot be reached{via}: {why}. No span arrives.",
        f"Start a collector there, or say where it is with {endpoint.variable}; "
        "OTEL_TRACES_EXPORTER=introspect_console shows the traces without one.",
    )


def _without_tls(endpoint: Endpoint, answer: Answer) -> Finding:
    if "://" not in endpoint.url:
        remedy = f"If it speaks no TLS: {endpoint.source}=http://{endpoint.url} (without a scheme, TLS is meant)."
    elif "CERTIFICATE_VERIFY_FAILED" in answer.detail or endpoint.target.authorities:
        remedy = "Name the file of the authority that signed its certificate: OTEL_EXPORTER_OTLP_CERTIFICATE"
    else:
        remedy = f"If it speaks no TLS: http:// in {endpoint.variable}."
    return problem(TOPIC, f"{endpoint.url}: no TLS connection comes about ({answer.detail}). No span arrives.", remedy)


def _http(endpoint: Endpoint, answer: Answer) -> Finding:
    status, said = answer.status, f"{endpoint.url} answers HTTP {answer.status}"
    if status // 100 == 2:  # noqa: PLR2004 - the class of a status is its first digit
        return ok(TOPIC, said)
    if status in (400, 411, 415, 429):
        return note(TOPIC, f"{said} to an empty export request: it is there, but it may not take traces.")
    if status // 100 == 3:  # noqa: PLR2004 - as above
        why = f"a redirect to {without_password(answer.detail)}, which turns an export into a page view"
        remedy = f"Name that place in {endpoint.variable}."
    elif status in (401, 403):
        why = "it refuses what we may send"
        remedy = (
            "Give it what it asks for in OTEL_EXPORTER_OTLP_HEADERS (authorization=Bearer%20...). "
            "A credential provider of the exporter is not used in this check."
        )
    elif status in (404, 405):
        why = "it takes no traces at this path"
        whole = endpoint.source == TRACES
        form = "the whole address, usually ending in /v1/traces" if whole else "the base, to which /v1/traces is added"
        remedy = f"{endpoint.variable} is {form}."
    else:
        why, remedy = "it takes no traces now", "Look at what the collector, or the proxy before it, logs."
    return problem(TOPIC, f"{said}: {why}.", remedy)
