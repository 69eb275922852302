"""What a log record says in one line, and how much it matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry._logs import SeverityNumber
from opentelemetry.semconv.attributes.code_attributes import CODE_FILE_PATH, CODE_FUNCTION_NAME, CODE_LINE_NUMBER
from opentelemetry.util.types import AttributeValue

from otel_introspect import semconv
from otel_introspect.engine.stack_text import cut

BODY_BYTES: Final = 300
"""How long a body may be."""
_NAME_BYTES: Final = 100

Attributes = Mapping[str, AttributeValue]


def severity_of(name: str, attributes: Attributes) -> SeverityNumber:
    """WARN for what is slow or was to be interrupted; INFO for a profile, and for what somebody has asked for."""
    if name == semconv.PROFILE_EVENT:
        return SeverityNumber.INFO
    if name == semconv.STACK_SNAPSHOT_EVENT:
        elapsed, threshold = attributes.get(semconv.ELAPSED_MS), attributes.get(semconv.THRESHOLD_MS)
        if isinstance(elapsed, int) and isinstance(threshold, int) and not 0 < threshold <= elapsed:
            return SeverityNumber.INFO
    return SeverityNumber.WARN


def body_of(span_name: str, name: str, attributes: Attributes) -> str:
    """One line: which work it is about, and the first that one wants to know of it."""
    say = _SAYINGS.get(name)
    said = name if say is None else say(attributes)
    return cut(f"{cut(span_name, _NAME_BYTES)}: {said}".replace("\n", " "), BODY_BYTES)


def _of_snapshot(attributes: Attributes) -> str:
    function = attributes.get(CODE_FUNCTION_NAME)
    where = "" if function is None else f", in {function}"
    file = attributes.get(CODE_FILE_PATH)
    if isinstance(file, str):
        where += f" ({'/'.join(file.rsplit('/', 2)[-2:])}:{attributes.get(CODE_LINE_NUMBER)})"
    return f"open for {attributes.get(semconv.ELAPSED_MS)} ms{where}"


def _of_threads(attributes: Attributes) -> str:
    return f"what the other {attributes.get(semconv.THREADS_COUNT)} threads were at"


def _of_profile(attributes: Attributes) -> str:
    return (
        f"profile of {attributes.get(semconv.PROFILE_DURATION_MS)} ms, {attributes.get(semconv.PROFILE_SAMPLE_COUNT)}"
        f" samples ({attributes.get(semconv.PROFILE_TRIGGER)})"
    )


def _of_timeout(attributes: Attributes) -> str:
    elapsed, limit = attributes.get(semconv.TIMEOUT_ELAPSED_MS), attributes.get(semconv.TIMEOUT_LIMIT_MS)
    if attributes.get(semconv.TIMEOUT_ENFORCED):
        return f"interrupted after {elapsed} ms, the limit was {limit} ms"
    reason = attributes.get(semconv.TIMEOUT_REASON, "for an unknown reason")
    return f"not interrupted, took {elapsed} ms, the limit was {limit} ms: {reason}"


_SAYINGS: Final = {
    semconv.STACK_SNAPSHOT_EVENT: _of_snapshot,
    semconv.THREADS_EVENT: _of_threads,
    semconv.PROFILE_EVENT: _of_profile,
    semconv.TIMEOUT_EVENT: _of_timeout,
}
