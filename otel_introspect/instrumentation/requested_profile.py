"""The profile that an HTTP request asks for, from the decision to the answer's headers: the same under every framework.

An adapter says what the request is, where it runs and when it is over. Nothing in here raises into the application.
"""

# ruff: noqa: EM101 - the reason of a refusal is a word of the contract, not a message

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from inspect import iscoroutine
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Span

from otel_introspect.engine import handover
from otel_introspect.engine.closing import close_before_end
from otel_introspect.engine.live_table import LiveTable, Watch
from otel_introspect.engine.places import Place, here
from otel_introspect.faults import fail_open, failed, tell_once
from otel_introspect.introspection import Introspection
from otel_introspect.triggers import travel
from otel_introspect.triggers.asking import FORWARDING_HEADERS, HEADER, Asked, profiled_headers, refused_headers
from otel_introspect.triggers.refusal import Reason, Refused, refuse

if TYPE_CHECKING:
    from contextvars import Token

    from otel_introspect.profiling.profiler import LiveProfile

Allow = Callable[[Any], object]
"""Asked with the request, or with what a framework has in its place; admits it by the answer True."""

ENVIRON_HEADER: Final = f"HTTP_{HEADER.upper().replace('-', '_')}"
"""The key of our header in a WSGI environ, and in Django's ``META``."""
SCOPE_HEADER: Final = HEADER.lower().encode()
"""Its name in an ASGI scope."""
ENVIRON_FORWARDING_HEADERS: Final = tuple(f"HTTP_{name.upper().replace('-', '_')}" for name in FORWARDING_HEADERS)
"""The keys of ``FORWARDING_HEADERS`` there."""


def nobody() -> bool:
    """Nobody is taken for a developer before this machine."""
    return False


class RequestedProfile:
    """What becomes of one request that asks to be profiled.

    Args:
        introspection: What profiles.
        asked: What the request asks for.
        span: The current span of the request; the profile goes on its entry span, as snapshots do.
        where: Says where a request runs that is not in the live table.
    """

    def __init__(
        self, introspection: Introspection, asked: Asked, span: Span, where: Callable[[], int | Place] = here
    ) -> None:
        self.asked: Final = asked
        self.is_undecided = False
        """Whether it is up to the application to admit the request."""
        self.outlives_request = False
        """Whether the span that it goes on is a server's, and ends by itself when the body has been sent."""
        self._introspection = introspection
        self._span = span
        self._where = where
        self._reason: Reason = "not-allowed"
        self._live: LiveProfile | None = None
        self._token: str | None = None
        self._before: Token[Context] | None = None
        self._is_over = False
        self._is_own_part = False
        self._origin: handover.Origin = None

    @property
    def is_taken(self) -> bool:
        """Whether the request is being profiled."""
        return self._live is not None

    # The decision.

    def decide(
        self, method: str, path: bytes, query: str, *, is_developer: Callable[[], bool], may_allow: bool | None = None
    ) -> None:
        """Begin the profile, or refuse it; or leave it undecided, so that ``ask`` is to be called.

        Args:
            method: Of the request.
            path: Its path, percent-decoded.
            query: Its query string, as it came.
            is_developer: See ``RequestTrigger.check``.
            may_allow: Likewise.
        """

        def decide() -> None:
            check = self._introspection.request_trigger.check
            if check(self.asked, method, path, query, is_developer=is_developer, may_allow=may_allow):
                self._begin()
            else:
                self.is_undecided = True

        self._settled(decide)

    def ask(self, request: object, allow: Allow | None = None) -> None:
        """Begin the profile if the application says so, provided that this is up to it.

        Args:
            request: What to ask with.
            allow: Whom to ask; what ``PROFILER_ALLOW`` names if None is given.
        """
        if self.is_undecided and self.is_allowed(request, allow):
            self.begin()

    def is_allowed(self, request: object, allow: Allow | None = None) -> bool:
        """What the application says; see ``ask``. On any thread."""
        path = self._introspection.config.profiler.allow
        check = self._introspection.request_trigger.check_allowed
        return self._settled(lambda: check(lambda: _answer(allow or _named(path), request)))

    def begin(self) -> None:
        """Begin the profile, where the request runs."""
        self._settled(self._begin)

    def _settled(self, step: Callable[[], object]) -> bool:
        """Whether *step* was possible; if not, there is no profile."""
        self.is_undecided = False
        try:
            step()
        except Refused as refusal:
            self._reason = refusal.reason
        except Exception as error:  # noqa: BLE001 - it would reach the application
            self._reason = "failed"
            failed("beginning a profile that was asked for", error)
        else:
            return True
        return False

    def _begin(self) -> None:
        introspection, span = self._introspection, self._span
        context = span.get_span_context()
        if not (span.is_recording() and context.trace_flags.sampled):
            raise refuse("not-recorded")
        with fail_open("telling other services to profile a request"):
            # Before the profile begins, which is not about this.
            self._token = introspection.request_trigger.travel_token(context.trace_id)
        key, entry = _entry_of(introspection.table, span)
        if entry is not None:
            self.outlives_request = entry is not span
            self._live = introspection.profiler.begin_for_entry(
                "request", entry, key, ends_here=not self.outlives_request
            )
        else:
            part, place = object(), self._where()
            self._live = introspection.profiler.begin("request", span, part, lambda: place, ends_here=True)
            close_before_end(span, self._live)
            self._is_own_part, self._origin = True, handover.current.get()
            handover.current.set(handover.Within(part, handover.origin_here()))
        if self._before is not None:
            attach(self._context())  # taken back with the one before

    # While the request runs.

    def enter(self) -> None:
        """From here to ``leave`` the services that the request calls are told to profile it, too.

        Both in the same context: what is decided in between, in one that was made of it, may come back into it.
        """
        with fail_open("telling other services to profile a request"):
            self._before = attach(self._context())

    def leave(self) -> None:
        """See ``enter``."""
        with fail_open("telling other services to profile a request"):
            before, self._before = self._before, None
            if before is not None:
                detach(before)

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the request, such as a chunk of its body, that has not the context of the rest."""
        before = attach(self._context())
        try:
            yield
        finally:
            detach(before)

    def _context(self) -> Context:
        return get_current() if self._token is None or not self.is_taken else travel.send(self._token)

    def go_on(self, span: Any, key: Hashable) -> None:  # noqa: ANN401 - a span, or what an adapter has in its place
        """Take another profile, of a part that comes when the request's span has ended; ends with the part's span.

        Args:
            span: Of the part.
            key: Its key in the live table.
        """
        with fail_open("profiling a part of a request"), suppress(Refused):
            if self.is_taken:
                self._introspection.profiler.begin_for_entry("request", span, key)

    # The end.

    def finish(self) -> None:
        """The request is over, or its span is about to end; a second time does nothing."""
        if self._live is None or self._is_over:
            return
        self._is_over = True
        if self._is_own_part:
            handover.current.set(self._origin)
        if not self._live.finish():
            self._live, self._reason = None, "failed"

    def headers(self) -> list[tuple[str, str]]:
        """What the answer says in addition."""
        if self._live is None:
            return refused_headers(self._reason)
        return profiled_headers(self._span.get_span_context().trace_id, self._live.id)


def path_in_scope(scope: Mapping[str, Any]) -> bytes:
    """The path of an ASGI request as the server has got it, percent-decoded."""
    raw: bytes | None = scope.get("raw_path")
    path: str = scope["path"]
    # Some servers leave the query string in it.
    return unquote_to_bytes(raw.partition(b"?")[0]) if raw else path.encode("utf-8", "surrogatepass")


def query_in_scope(scope: Mapping[str, Any]) -> str:
    """The query string of an ASGI request, with a character for each byte."""
    query: bytes | str = scope.get("query_string", b"")
    return query.decode("latin-1") if isinstance(query, bytes) else query  # as Django's test client has it


def scope_without_us(scope: Mapping[str, Any], wanted: Asked) -> dict[str, Any]:
    """The scope of an ASGI request that has not asked: a copy, as the server may still want to know what it has got."""
    headers = [each for each in scope.get("headers", ()) if each[0] != SCOPE_HEADER]
    return {**scope, "query_string": wanted.query.encode("latin-1"), "headers": headers}


def _entry_of(table: LiveTable, span: Span) -> tuple[int, Any]:
    """The key of the entry span that is *span* or its parent, and that span; None if there is none in the table."""
    for context in (span.get_span_context(), getattr(span, "parent", None)):
        if context is None:
            continue
        # In this order, as one that turns slow is put there before it is taken out here.
        entry = table.open.get(context.span_id) or table.slow.get(context.span_id)
        if entry is not None:
            reference = entry.reference if isinstance(entry, Watch) else entry[0]
            return context.span_id, reference()
    return 0, None


@cache
def _named(path: str) -> Allow:
    """What ``PROFILER_ALLOW`` names, as ``package.module:name`` or ``package.module.name``."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    allow: Allow = attrgetter(name)(import_module(module))
    return allow


def _answer(allow: Allow, request: object) -> object:
    answer = allow(request)
    if iscoroutine(answer):
        answer.close()
        tell_once(
            logging.WARNING,
            "What decides whether a request is profiled must not be a coroutine function, as %r is: it admits nobody.",
            allow,
        )
    return answer
