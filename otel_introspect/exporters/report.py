"""What a person is told of one slow request: the same text in a mail, a log record and a file."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from otel_introspect import semconv
from otel_introspect.engine.redaction import Redaction
from otel_introspect.engine.stack_text import cut
from otel_introspect.exporters.span_view import EventView, SpanView
from otel_introspect.exporters.stack_lines import with_omitted
from otel_introspect.exporters.styled import harmless, shortened

MAX_BYTES: Final = 64 * 1024
"""How long a report's text is at most, in UTF-8."""

_REDACTION: Final = Redaction()
_MAX_SUBJECT: Final = 180
_MAX_FIELD: Final = 2000
_MAX_KEY: Final = 200
_MAX_LOCALS: Final = 200
_MILLISECONDS: Final = 1_000_000
_SECONDS: Final = 1_000_000_000
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]+")
# Both generations of OpenTelemetry's names: which one a service sends is for its instrumentation to choose.
_METHOD: Final = ("http.request.method", "http.method")
_URL: Final = ("url.full", "http.url")
_SCHEME: Final = ("url.scheme", "http.scheme")
_HOST: Final = ("server.address", "http.host", "net.host.name", "http.server_name")
_PORT: Final = ("server.port", "net.host.port")
_STATUS: Final = ("http.response.status_code", "http.status_code")
_ROUTE: Final = "http.route"
_STACK: Final = "code.stacktrace"
_FUNCTION: Final = "code.function.name"
_FILE: Final = "code.file.path"
_LINE: Final = "code.line.number"


class Key(NamedTuple):
    """What makes two slow requests the same trouble.

    Args:
        route: The route, or the span's name.
        function: Of the innermost application frame at the first snapshot.
        file: Of that frame.
    """

    route: str
    function: str
    file: str

    def __str__(self) -> str:
        return f"{self.route} in {self.function} ({self.file})" if self.function or self.file else self.route


def is_reportable(attributes: Mapping[str, Any], *, entry: bool) -> bool:
    """Whether a span is one that a person is told of: slow; or a request that was interrupted or outlived its process.

    Not a checkpoint, as all that it says is said once more at its request's end.
    """
    if attributes.get(semconv.CHECKPOINT) is True:
        return False
    if attributes.get(semconv.SLOW) is True:
        return True
    return entry and (attributes.get(semconv.INTERRUPTED) is True or attributes.get(semconv.RECOVERED) is True)


def key_of(span: SpanView) -> Key:
    """The group that it belongs to."""
    first = next(_events(span, semconv.STACK_SNAPSHOT_EVENT), None) or next(_events(span, semconv.TIMEOUT_EVENT), None)
    given = first.attributes if first else {}
    route = span.attributes.get(_ROUTE) or span.name
    return Key(
        *(shortened(harmless(each), _MAX_KEY) for each in (route, given.get(_FUNCTION, ""), given.get(_FILE, "")))
    )


def headline(span: SpanView) -> str:
    """One line: what it was and how long it took."""
    attributes = span.attributes
    method = _first(attributes, _METHOD)
    route = attributes.get(_ROUTE)
    what = f"{harmless(method)} {harmless(route)}" if method and route else harmless(span.name)
    return f"{shortened(what, _MAX_SUBJECT)} {_ending(span)}"


def link_to(span: SpanView, template: str) -> str:
    """Where the trace can be looked at; empty without a *template*."""
    return template.replace("{trace_id}", span.trace_id).replace("{span_id}", span.span_id)


def text_of(span: SpanView, link: str = "") -> str:
    """All that is known of it, for a reader in a hurry: what, where, the stacks, the rest.

    Args:
        span: A finished one.
        link: Template of the link to its trace.
    """
    lines = [headline(span), "", *_fields(span, link), *_verdicts(span), *_stacks(span)]
    for event in _events(span, semconv.THREADS_EVENT):
        lines += _section(f"Other threads ({event.attributes.get(semconv.THREADS_COUNT, '?')})")
        lines += _lines(event.attributes.get(semconv.THREADS_TEXT, ""))
    for event in _events(span, semconv.PROFILE_EVENT):
        lines += _profile(event.attributes)
    text = "\n".join(lines) + "\n"
    short = cut(text, MAX_BYTES)
    return text if len(short) == len(text) else short + "\n[the rest is left out: see the trace]\n"


def fields_of(span: SpanView, link: str = "") -> dict[str, str | int | float]:
    """The same as flat data, for whatever counts and searches."""
    key = key_of(span)
    fields: dict[str, str | int | float] = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "route": key.route,
        "function": key.function,
        "file": key.file,
        "method": harmless(_first(span.attributes, _METHOD) or ""),
        "url": _url(span.attributes),
        "service": span.service,
        "elapsed_ms": span.duration_ns // _MILLISECONDS,
        "link": link_to(span, link),
    }
    return {name: harmless(value) if isinstance(value, str) else value for name, value in fields.items() if value != ""}


def safe_name(span: SpanView) -> str:
    """A file's name that sorts by time, without anything that came from outside."""
    ids = [each if _HEXADECIMAL.fullmatch(each) else "unknown" for each in (span.trace_id, span.span_id)]
    return "-".join([instant(span.start_ns).translate(_NOT_IN_NAMES), *ids])


_NOT_IN_NAMES: Final = str.maketrans("", "", ":-")


def _fields(span: SpanView, link: str) -> Iterator[str]:
    attributes, resource = span.attributes, span.resource
    first = next(_events(span, semconv.STACK_SNAPSHOT_EVENT), None)
    thread = first.attributes if first else attributes
    url = _url(attributes)
    method = _first(attributes, _METHOD) or ""
    status = [_first(attributes, _STATUS), None if span.status == "UNSET" else span.status, span.status_description]
    pid = resource.get("process.pid")
    if pid is None and attributes.get(semconv.RECOVERED) is not True:
        pid = os.getpid()
    yield from _field("Request", f"{harmless(method)} {url}".strip())
    yield from _field("Route", attributes.get(_ROUTE))
    yield from _field("Span", None if span.name == attributes.get(_ROUTE) else span.name)
    yield from _field("Service", span.service)
    yield from _field("Host", resource.get("host.name") or socket.gethostname())
    yield from _field("Process", pid)
    name, number = thread.get("thread.name"), thread.get("thread.id")
    yield from _field("Thread", f"{harmless(name or '')} ({harmless(number)})".strip() if number is not None else name)
    yield from _field("Started", instant(span.start_ns))
    yield from _field("Elapsed", _seconds(span.duration_ns))
    yield from _field("Status", " ".join(harmless(each) for each in status if each))
    yield from _field("Error", attributes.get("error.type"))
    yield from _field("Trace", span.trace_id)
    yield from _field("Span id", span.span_id)
    yield from _field("Link", link_to(span, link))


def _field(name: str, value: object) -> Iterator[str]:
    if value is not None and value != "":
        yield f"  {name:<9} {shortened(harmless(value), _MAX_FIELD)}"


def _url(attributes: Mapping[str, Any]) -> str:
    # A mail goes further than a span does.
    return _REDACTION.without_secrets(_url_as_given(attributes))


def _url_as_given(attributes: Mapping[str, Any]) -> str:
    whole = _first(attributes, _URL)
    if whole:
        return _without_password(harmless(whole))
    path = harmless(attributes.get("url.path") or attributes.get("http.target") or "")
    query = attributes.get("url.query")
    if query and "?" not in path:
        path += f"?{harmless(query)}"
    host = harmless(_first(attributes, _HOST) or "")
    port = _first(attributes, _PORT)
    if host and port is not None and ":" not in host:
        host += f":{harmless(port)}"
    scheme = _first(attributes, _SCHEME)
    return f"{harmless(scheme or 'http')}://{host}{path}" if host and path else path


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def _verdicts(span: SpanView) -> Iterator[str]:
    if span.attributes.get(semconv.RECOVERED) is True:
        yield from ("", "Its process died while this request was running. Another one has sent what was known of it.")
    elif span.attributes.get(semconv.INTERRUPTED) is True:
        yield from ("", "It was interrupted.")
    for event in _events(span, semconv.TIMEOUT_EVENT):
        given = event.attributes
        enforced = given.get(semconv.TIMEOUT_ENFORCED) is True
        limit, elapsed = given.get(semconv.TIMEOUT_LIMIT_MS), given.get(semconv.TIMEOUT_ELAPSED_MS)
        outcome = "interrupted" if enforced else "not interrupted"
        yield ""
        yield harmless(
            f"A limit of {limit} ms had passed: {outcome} after {elapsed} ms ({given.get(semconv.TIMEOUT_MECHANISM)})."
        )
        if not enforced:
            yield from _field("Why", given.get(semconv.TIMEOUT_REASON))
        yield from _stack(given)


def _stacks(span: SpanView) -> Iterator[str]:
    taken = list(_events(span, semconv.STACK_SNAPSHOT_EVENT))
    if not taken:
        yield ""
        yield (
            "There is no stack on the span: it may have been over before one could be taken, or evidence goes to log"
            " records of this trace (OTEL_PYTHON_INTROSPECT_EVENTS=log)."
        )
    before: Any = None
    for event in taken:
        given = event.attributes
        elapsed, state = given.get(semconv.ELAPSED_MS, "?"), given.get(semconv.TASK_STATE)
        title = (
            f"Stack after {elapsed} ms (observer: {given.get(semconv.OBSERVER, '?')}{f', {state}' if state else ''})"
        )
        same = before is not None and given.get(_STACK) == before
        yield from _section(f"{title}: the same" if same else title)
        if not same:
            yield from _stack(given)
        before = given.get(_STACK)
        held = given.get(semconv.STACK_LOCALS)
        if isinstance(held, (list, tuple)) and held:
            yield from ("", "  Locals:")
            for each in held[:_MAX_LOCALS]:
                yield from (f"    {line}" for line in _lines(each))


def _stack(given: Mapping[str, Any]) -> Iterator[str]:
    text, frames = given.get(_STACK), given.get(semconv.STACK_FRAMES)
    if text:
        whole = isinstance(text, str) and isinstance(frames, (list, tuple))
        yield from _lines(with_omitted(text, [str(each) for each in frames or ()]) if whole else text)


def _profile(given: Mapping[str, Any]) -> Iterator[str]:
    covered = (
        f"{given.get(semconv.PROFILE_SAMPLE_COUNT, '?')} samples in {given.get(semconv.PROFILE_DURATION_MS, '?')} ms"
    )
    yield from _section(f"Profile ({covered}, trigger: {given.get(semconv.PROFILE_TRIGGER, '?')})")
    yield from _lines(given.get(semconv.PROFILE_TEXT, ""))
    yield from _field("Whole", given.get(semconv.PROFILE_URL))


def _section(title: str) -> tuple[str, ...]:
    shown = harmless(title)
    return ("", shown, "-" * len(shown))


def _lines(text: object) -> Iterable[str]:
    return [harmless(line) for line in text.rstrip().split("\n")] if isinstance(text, str) else [harmless(text)]


def _events(span: SpanView, name: str) -> Iterator[EventView]:
    return (event for event in span.events if event.name == name)


def _first(attributes: Mapping[str, Any], names: Iterable[str]) -> Any:  # noqa: ANN401 - of whatever type it is
    return next((attributes[name] for name in names if attributes.get(name) not in (None, "")), None)


def _ending(span: SpanView) -> str:
    took = _seconds(span.duration_ns)
    if span.attributes.get(semconv.RECOVERED) is True:
        return f"outlived its process, {took} after its start"
    if span.attributes.get(semconv.INTERRUPTED) is True:
        return f"was interrupted after {took}"
    return f"took {took}"


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / _SECONDS:.3f} s"


def instant(nanoseconds: int) -> str:
    """UTC, in ISO 8601.

    >>> instant(1_700_000_000_123_456_789)
    '2023-11-14T22:13:20.123Z'
    """
    seconds, rest = divmod(nanoseconds, _SECONDS)
    try:
        when = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):  # a clock that was never set, or a span from somewhere else
        return f"{seconds}s"
    return f"{when:%Y-%m-%dT%H:%M:%S}.{rest // _MILLISECONDS:03d}Z"
