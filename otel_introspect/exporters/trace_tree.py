"""One trace as a tree of lines for somebody who wants to know now why it was slow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from opentelemetry.semconv._incubating.attributes import db_attributes, http_attributes, url_attributes
from opentelemetry.semconv._incubating.attributes.thread_attributes import THREAD_NAME
from opentelemetry.semconv.attributes.code_attributes import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    CODE_STACKTRACE,
)

from otel_introspect import semconv
from otel_introspect.exporters.span_view import EventView, SpanView
from otel_introspect.exporters.stack_lines import stack_lines, thread_lines, with_omitted
from otel_introspect.exporters.styled import (
    UNICODE,
    Glyphs,
    Line,
    Segment,
    duration,
    harmless,
    milliseconds_of,
    shortened,
)
from otel_introspect.exporters.trace_buffer import Trace

# Instrumentations are between two versions of the conventions; whichever they send.
_METHOD: Final = (http_attributes.HTTP_REQUEST_METHOD, "http.method")
_PATH: Final = (http_attributes.HTTP_ROUTE, url_attributes.URL_PATH, "http.target")
_STATUS_CODE: Final = (http_attributes.HTTP_RESPONSE_STATUS_CODE, "http.status_code")
_STATEMENT: Final = (db_attributes.DB_QUERY_TEXT, "db.statement")

_SERVER_ERROR: Final = 500
_EXCEPTION_EVENT: Final = "exception"
_MAX_NAME: Final = 120
_MAX_VALUE: Final = 110
_MAX_DEPTH: Final = 30
_MAX_CHILDREN: Final = 25
_MAX_PROFILE_LINES: Final = 60
# What pyinstrument draws its trees with.
_BOXES: Final = str.maketrans({"├": "|", "│": "|", "└": "`", "─": "-"})
_MAX_EVENTS: Final = 64
_ALIKE_FROM: Final = 3
_TOO_MANY_FROM: Final = 10
_SHARE_FROM: Final = 0.1
_GUILTY_FROM: Final = 0.5
_SHARE_FROM_NS: Final = 10_000_000


def by_trace(spans: Iterable[SpanView]) -> list[Trace]:
    """*spans* grouped by trace id, in order of their first appearance."""
    groups: dict[str, list[SpanView]] = {}
    for span in spans:
        groups.setdefault(span.trace_id, []).append(span)
    return [Trace(trace_id, tuple(members)) for trace_id, members in groups.items()]


def render(trace: Trace, glyphs: Glyphs = UNICODE) -> list[Line]:
    """*trace* as a tree, one heading line first.

    The spans are nested as they were, with duration, status and what matters of their attributes. What the watchdog
    saw comes right below the span that it belongs to. Siblings that are alike (one query, many times) share a line.
    """
    return list(_Renderer(trace, glyphs).lines())


@dataclass(frozen=True, slots=True)
class _Alike:
    """Siblings that differ in nothing that is shown, or one span by itself."""

    spans: tuple[SpanView, ...]

    @property
    def first(self) -> SpanView:
        return self.spans[0]

    @property
    def duration_ns(self) -> int:
        return sum(span.duration_ns for span in self.spans)


def _without_checkpoints(trace: Trace) -> Trace:
    """*trace* without what was sent ahead and has been said by the span itself since."""
    known = {span.span_id for span in trace.spans}
    kept = tuple(
        span
        for span in trace.spans
        if span.attributes.get(semconv.CHECKPOINT) is not True or span.parent_id not in known
    )
    return trace if len(kept) == len(trace.spans) else replace(trace, spans=kept)


class _Renderer:
    def __init__(self, trace: Trace, glyphs: Glyphs) -> None:
        self._trace = trace = _without_checkpoints(trace)
        self._glyphs = glyphs
        # One object may be met once only: the parents of hostile data may go in circles, or two spans have one id.
        self._unvisited = {id(span): span for span in trace.spans}
        self._children: dict[str, list[SpanView]] = {}
        for span in sorted(trace.spans, key=lambda span: span.start_ns):
            self._children.setdefault(span.parent_id, []).append(span)

    def lines(self) -> Iterator[Line]:
        spans = self._trace.spans
        if not spans:
            return
        yield self._heading()
        known = {span.span_id for span in spans}
        roots = [span for span in spans if not span.parent_id or span.parent_id not in known]
        for root in sorted(roots, key=lambda span: span.start_ns):
            yield from self._root(root)
        while self._unvisited:  # only spans that are each other's parents are left
            yield from self._root(next(iter(self._unvisited.values())))

    def _root(self, root: SpanView) -> Iterator[Line]:
        if self._unvisited.pop(id(root), None) is not None:
            yield from self._span(_Alike((root,)), root, "", "", 0)

    def _heading(self) -> Line:
        first = min(self._trace.spans, key=lambda span: span.start_ns)
        words = [f"trace {harmless(self._trace.trace_id)}"]
        if first.service:
            words.append(shortened(harmless(first.service), _MAX_NAME, self._glyphs))
        words.append(_time_of_day(first.start_ns))
        heading = [Segment(self._glyphs.dot.join(words), "dim")]
        if self._trace.late:
            heading.append(Segment(f"{self._glyphs.dot}continued: ended after its parent", "note"))
        if self._trace.partial:
            heading.append(Segment(f"{self._glyphs.dot}its entry span has not arrived", "note"))
        return tuple(heading)

    def _span(self, alike: _Alike, whole: SpanView, branch: str, below: str, depth: int) -> Iterator[Line]:
        yield (Segment(branch, "dim"), *self._title(alike, whole))
        span = alike.first
        children = self._take_children(span)
        guide = Segment(below + (self._glyphs.down if children else self._glyphs.gap), "dim")
        for line in self._details(span):
            yield (guide, *line)
        if not children:
            return
        if depth >= _MAX_DEPTH:
            yield (Segment(below + self._glyphs.last, "dim"), self._left_out(self._take_all_below(children)))
            return
        # The longest are what the reader looks for; the order stays that of time.
        longest = sorted(children, key=lambda each: each.duration_ns, reverse=True)[:_MAX_CHILDREN]
        shown = [each for each in children if len(children) <= _MAX_CHILDREN or any(each is one for one in longest)]
        hidden = [each for each in children if not any(each is one for one in shown)]
        for each in shown:
            last = each is shown[-1] and not hidden
            yield from self._span(
                each,
                whole,
                below + (self._glyphs.last if last else self._glyphs.branch),
                below + (self._glyphs.gap if last else self._glyphs.down),
                depth + 1,
            )
        if hidden:
            yield (Segment(below + self._glyphs.last, "dim"), self._left_out(self._take_all_below(hidden)))

    def _take_children(self, span: SpanView) -> list[_Alike]:
        groups: dict[object, list[SpanView]] = {}
        for child in self._children.get(span.span_id, ()):
            if self._unvisited.pop(id(child), None) is None:
                continue
            # By itself whatever has something of its own to show.
            own = child.events or child.slow or child.status == "ERROR" or child.span_id in self._children
            key: object = id(child) if own else (child.name, child.kind, str(_first(child.attributes, _STATEMENT)))
            groups.setdefault(key, []).append(child)
        alike = []
        for members in groups.values():
            alike += [_Alike(tuple(members))] if len(members) >= _ALIKE_FROM else [_Alike((each,)) for each in members]
        return sorted(alike, key=lambda each: each.first.start_ns)

    def _take_all_below(self, groups: Sequence[_Alike]) -> list[SpanView]:
        found = [span for group in groups for span in group.spans]
        for span in found:  # grows while it is walked: no recursion, however deep
            below = self._children.get(span.span_id, ())
            found += [child for child in below if self._unvisited.pop(id(child), None) is not None]
        return found

    def _left_out(self, spans: Sequence[SpanView]) -> Segment:
        slow = sum(span.slow for span in spans)
        return Segment(
            f"{self._glyphs.ellipsis} {len(spans)} more span{'s' if len(spans) != 1 else ''}"
            + (f", {slow} of them slow" if slow else ""),
            "note",
        )

    def _title(self, alike: _Alike, whole: SpanView) -> Iterator[Segment]:
        span, glyphs = alike.first, self._glyphs
        count = len(alike.spans)
        name = shortened(harmless(span.name), _MAX_NAME, glyphs) or "(no name)"
        yield Segment(name, "name")
        if count > 1:
            yield Segment(f" {glyphs.times}{count}", "slow" if count >= _TOO_MANY_FROM else "name")
        spent = alike.duration_ns
        share = spent / whole.duration_ns if whole.duration_ns and span is not whole else 0
        # What runs in several threads, or after its parent has ended, is no share of it.
        percent = f" ({share:.0%})" if _SHARE_FROM <= share <= 1 and spent >= _SHARE_FROM_NS else ""
        hot = span.slow or (whole.slow and share >= _GUILTY_FROM)
        yield Segment(f"  {duration(spent)}{percent}", "slow" if hot else "plain")
        if count > 1:
            longest = max(each.duration_ns for each in alike.spans)
            yield Segment(f" together, longest {duration(longest)}")
        yield from self._attributes(span)
        if span.slow:
            yield Segment("  SLOW", "slow")
        if span.status == "ERROR":
            description = shortened(harmless(span.status_description), _MAX_VALUE, glyphs)
            yield Segment(f"  ERROR{': ' if description else ''}{description}", "error")

    def _attributes(self, span: SpanView) -> Iterator[Segment]:
        code = _first(span.attributes, _STATUS_CODE)
        if code is not None:
            failed = isinstance(code, int) and code >= _SERVER_ERROR
            yield Segment(f"  {shortened(harmless(code), 20, self._glyphs)}", "error" if failed else "plain")
        for keys in (_METHOD, _PATH, _STATEMENT):
            value = _first(span.attributes, keys)
            # A statement is written on several lines for those who read its source.
            text = harmless(" ".join(str(value).split()) if isinstance(value, str) else value)
            text = shortened(text, _MAX_VALUE, self._glyphs)
            if value is not None and (text.strip("/") or text) not in span.name:
                yield Segment(f"  {text}", "dim")

    def _details(self, span: SpanView) -> Iterator[Line]:
        events = sorted(span.events, key=lambda event: event.time_ns)
        if len(events) > _MAX_EVENTS:
            yield (Segment(f"{self._glyphs.ellipsis} {len(events) - _MAX_EVENTS} earlier events", "note"),)
        before: str | None = None
        for event in events[-_MAX_EVENTS:]:
            if event.name == semconv.STACK_SNAPSHOT_EVENT:
                stack = str(event.attributes.get(CODE_STACKTRACE, ""))
                yield from self._snapshot(event, stack, same=stack == before)
                before = stack
            elif event.name == semconv.THREADS_EVENT:
                yield from self._threads(event)
            elif event.name == semconv.PROFILE_EVENT:
                yield from self._profile(event)
            else:
                yield from self._other_event(event, span)

    def _snapshot(self, event: EventView, stack: str, *, same: bool) -> Iterator[Line]:
        attributes = event.attributes
        said = []
        if semconv.OBSERVER in attributes:
            said.append(f"seen by {harmless(attributes[semconv.OBSERVER])}")
        if semconv.LATENESS_MS in attributes:
            said.append(f"{milliseconds_of(attributes[semconv.LATENESS_MS])} late")
        if semconv.TASK_STATE in attributes:
            said.append(f"task {harmless(attributes[semconv.TASK_STATE])}")
        if attributes.get(THREAD_NAME):  # one that gevent has made has none
            said.append(f"thread {harmless(attributes[THREAD_NAME])}")
        dot = self._glyphs.dot
        heading = [
            Segment(f"stack after {milliseconds_of(attributes.get(semconv.ELAPSED_MS, '?'))}", "slow"),
            *self._culprit(attributes),
            Segment(shortened(f"{dot}{dot.join(said)}" if said else "", 2 * _MAX_VALUE, self._glyphs), "dim"),
        ]
        repeated = attributes.get(semconv.REPEATED)
        if isinstance(repeated, int) and repeated > 1:
            heading.append(Segment(f"{dot}same stack {harmless(repeated)} times", "note"))
        yield tuple(heading)
        if not same:
            frames = attributes.get(semconv.STACK_FRAMES)
            if isinstance(frames, (list, tuple)):
                stack = with_omitted(stack, [str(frame) for frame in frames])
            variables = attributes.get(semconv.STACK_LOCALS)
            shown = [str(each) for each in variables] if isinstance(variables, (list, tuple)) else []
            for line in stack_lines(stack, self._glyphs, shown):
                yield (Segment("  "), *line)

    def _culprit(self, attributes: Mapping[str, Any]) -> Iterator[Segment]:
        function = attributes.get(CODE_FUNCTION_NAME)
        if function is None:
            return
        yield Segment(" in ", "plain")
        yield Segment(shortened(harmless(function), _MAX_VALUE, self._glyphs), "application")
        if CODE_FILE_PATH in attributes:
            file = harmless(attributes[CODE_FILE_PATH]).replace("\\", "/").rpartition("/")[2]
            line = f":{harmless(attributes[CODE_LINE_NUMBER])}" if CODE_LINE_NUMBER in attributes else ""
            yield Segment(f" ({shortened(file, _MAX_VALUE, self._glyphs)}{line})")

    def _threads(self, event: EventView) -> Iterator[Line]:
        count = harmless(event.attributes.get(semconv.THREADS_COUNT, "?"))
        yield (Segment(f"meanwhile {count} other thread{'' if count == '1' else 's'}", "slow"),)
        for line in thread_lines(str(event.attributes.get(semconv.THREADS_TEXT, "")), self._glyphs):
            yield (Segment("  "), *line)

    def _profile(self, event: EventView) -> Iterator[Line]:
        attributes, dot = event.attributes, self._glyphs.dot
        said = [harmless(attributes[key]) for key in (semconv.PROFILE_TRIGGER,) if key in attributes]
        if semconv.PROFILE_SAMPLE_COUNT in attributes:
            said.append(f"{harmless(attributes[semconv.PROFILE_SAMPLE_COUNT])} samples")
        if semconv.PROFILE_URL in attributes:
            said.append(harmless(attributes[semconv.PROFILE_URL]))
        covered = milliseconds_of(attributes.get(semconv.PROFILE_DURATION_MS, "?"))
        yield (
            Segment(f"profile of {covered}", "slow"),
            Segment(shortened(f"{dot}{dot.join(said)}" if said else "", 3 * _MAX_VALUE, self._glyphs), "dim"),
        )
        lines = str(attributes.get(semconv.PROFILE_TEXT, "")).splitlines()
        for line in lines[:_MAX_PROFILE_LINES]:
            drawn = line.translate(_BOXES) if self._glyphs is not UNICODE else line
            yield (Segment(f"  {shortened(harmless(drawn), 2 * _MAX_VALUE, self._glyphs)}"),)
        if len(lines) > _MAX_PROFILE_LINES:
            yield (Segment(f"  {self._glyphs.ellipsis} {len(lines) - _MAX_PROFILE_LINES} more lines", "note"),)

    def _other_event(self, event: EventView, span: SpanView) -> Iterator[Line]:
        attributes = event.attributes
        after = f"{duration(max(event.time_ns - span.start_ns, 0))}: "
        if event.name == _EXCEPTION_EVENT:
            words = [harmless(attributes.get(f"exception.{key}", "")) for key in ("type", "message")]
            said = shortened(": ".join(word for word in words if word), 2 * _MAX_VALUE, self._glyphs)
            yield (Segment(f"after {after}", "dim"), Segment(said or _EXCEPTION_EVENT, "error"))
            for line in stack_lines(str(attributes.get("exception.stacktrace", "")), self._glyphs):
                yield (Segment("  "), *line)
            return
        shown = "  ".join(
            f"{harmless(key)}={shortened(harmless(value), 40, self._glyphs)}"
            for key, value in list(attributes.items())[:4]
        )
        name = shortened(harmless(event.name), _MAX_NAME, self._glyphs)
        yield (Segment(f"after {after}", "dim"), Segment(f"{name}  "), Segment(shown, "dim"))


def _first(attributes: Mapping[str, Any], keys: Iterable[str]) -> object:
    return next((attributes[key] for key in keys if key in attributes), None)


def _time_of_day(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "at no time that a calendar has"
