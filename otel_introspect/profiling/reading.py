"""Finds the profile that somebody names: a stored one, by file, URL or id, or the one that a trace carries."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlunsplit

from otel_introspect import semconv
from otel_introspect.config import ProfilerConfig
from otel_introspect.engine.stack_text import one_line
from otel_introspect.environment_variables import OTEL_PYTHON_INTROSPECT_PROFILER_STORE
from otel_introspect.profiling.console_tree import Circumstances, session_from_text
from otel_introspect.profiling.otlp_json import TracedProfile, is_trace, profiles_in
from otel_introspect.profiling.retrieval import MAX_BYTES, ReadError, fetch, parts_of_url, scheme_of, shown
from otel_introspect.profiling.session_json import FRAME_RECORDS, session_of

if TYPE_CHECKING:
    from pyinstrument.session import Session

__all__ = ["Found", "ReadError", "find", "read"]

_SESSION_SUFFIX: Final = ".pyisession.json"
_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_MAX_TIME: Final = 253_402_300_800.0  # as of a session: the year 10,000
_LISTED: Final = 20
_MAX_NAME: Final = 60
_MAX_STEM: Final = 80
_NOT_IN_A_FILE_S_NAME: Final = re.compile(r"[^\w.-]+", re.ASCII)
_EXPECTED: Final = (
    "Expected a stored profile (<profile id>.pyisession.json), or a trace in OTLP's JSON with an event "
    f"{semconv.PROFILE_EVENT}"
)


class Found(NamedTuple):
    """A profile that has been found.

    Args:
        session: The profile.
        name: What to call a file that is made of it, without a suffix.
        notes: What its user should know: that it is not the whole, for example.
    """

    session: Session
    name: str
    notes: tuple[str, ...] = ()


def read(source: str, *, profile_id: str | None = None) -> Session:
    """Read a profile.

    Args:
        source: The path or URL of a stored profile (``.pyisession.json``, or the ``.html`` beside it), the path or URL
            of a trace in OTLP's JSON (an object, or one on each line), or a profile's id, which is then looked for in
            ``OTEL_PYTHON_INTROSPECT_PROFILER_STORE``. Packed by gzip or not.
        profile_id: Which, if a trace has several: the begin of its id, or the id of its trace or span.

    Raises:
        ReadError: If there is none, or more than one is meant.
    """
    return find(source, profile_id=profile_id).session


def find(source: str, *, profile_id: str | None = None, max_bytes: int = MAX_BYTES) -> Found:
    """Read a profile, as ``read`` does, and say what it is called and what it lacks.

    Args:
        source: As for ``read``.
        profile_id: As for ``read``.
        max_bytes: A larger file is refused.

    Raises:
        ReadError: As for ``read``.
    """
    address = _address(source)
    documents = _documents(fetch(address, max_bytes), address)
    if len(documents) == 1 and isinstance(documents[0], dict) and FRAME_RECORDS in documents[0]:
        return Found(session_of(documents[0], address), _stem(address))
    if any(is_trace(document) for document in documents):
        return _from_trace(_chosen(profiles_in(documents), address, profile_id), max_bytes)
    msg = f"{shown(address)} is neither a profile nor a trace. {_EXPECTED}"
    raise ReadError(msg)


def _address(source: str) -> str:
    """Where the session is of which *source* speaks."""
    if not source.strip():
        msg = f"No profile is named. {_EXPECTED}"
        raise ReadError(msg)
    if _ID.fullmatch(source) and not os.path.lexists(source):
        store = ProfilerConfig.from_env().store
        if not store:
            msg = (
                f"{source} is a profile's id, and there is no file of that name. To look it up set "
                f"{OTEL_PYTHON_INTROSPECT_PROFILER_STORE} to the directory or URL where the service stores profiles"
            )
            raise ReadError(msg)
        return f"{store.rstrip('/')}/{source.lower()}{_SESSION_SUFFIX}"
    return _beside_html(source)


def _beside_html(source: str) -> str:
    """The session that a page was made of; that stands beside it under the same name."""
    if not scheme_of(source):
        return _without_html(source)
    parts = parts_of_url(source)
    return urlunsplit(parts._replace(path=_without_html(parts.path))) if parts.path.endswith(".html") else source


def _without_html(path: str) -> str:
    return f"{path[: -len('.html')]}{_SESSION_SUFFIX}" if path.endswith(".html") else path


def _stem(address: str) -> str:
    name = PurePosixPath(parts_of_url(address).path).name if scheme_of(address) else Path(address).name
    for suffix in (".gz", ".json", ".pyisession"):
        name = name.removesuffix(suffix)
    return _file_name(name)


def _file_name(name: str) -> str:
    return _NOT_IN_A_FILE_S_NAME.sub("-", name).strip(".-")[:_MAX_STEM] or "profile"


def _documents(found: bytes, address: str) -> list[Any]:
    """The JSON value of a file, or that of each line that has one."""
    try:
        text = found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{shown(address)} is no text in UTF-8 (at byte {error.start}). {_EXPECTED}"
        raise ReadError(msg) from error
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError) as error:
        # The last line may be incomplete: whoever writes the file may be about it right now.
        documents = list(_of_lines(text)) if "\n" in text.strip() else []
        if not documents:
            msg = f"{shown(address)} is no JSON: {one_line(str(error))}. {_EXPECTED}"
            raise ReadError(msg) from error
        return documents


def _of_lines(text: str) -> Iterator[Any]:
    """The values of the lines that matter: a file of many traces has few profiles."""
    first = True
    for line in text.split("\n"):
        if not line.strip() or not (first or semconv.PROFILE_EVENT in line):
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            first = False
            yield document


def _chosen(profiles: list[TracedProfile], address: str, wanted: str | None) -> TracedProfile:
    if not profiles:
        msg = (
            f"No span in {shown(address)} carries a profile: expected an event {semconv.PROFILE_EVENT}. "
            "Was the request profiled, and has its span ended?"
        )
        raise ReadError(msg)
    meant = profiles if wanted is None else [each for each in profiles if each.answers_to(wanted)]
    if len(meant) == 1:
        return meant[0]
    if wanted is None:
        head = f"{shown(address)} has {len(profiles)} profiles: say which by --id, with the begin of a profile's id"
    elif meant:
        head = f"{len(meant)} profiles in {shown(address)} answer to {one_line(wanted)[:_MAX_NAME]}: say more of the id"
    else:
        head = f"No profile in {shown(address)} answers to {one_line(wanted)[:_MAX_NAME]}: it has"
    msg = "\n".join([head, *_listed(meant or profiles)])
    raise ReadError(msg)


def _listed(profiles: list[TracedProfile]) -> Iterator[str]:
    for each in profiles[:_LISTED]:
        duration = "" if each.duration is None else f"  {each.duration:.3f} s"
        trigger = each.text_of(semconv.PROFILE_TRIGGER)
        yield one_line(
            f"  {each.profile_id[:_MAX_NAME] or '(no id)'}  {each.span_name[:_MAX_NAME]}  trace {each.trace_id}  "
            f"span {each.span_id}{duration}{f'  {trigger[:_MAX_NAME]}' if trigger else ''}"
        )
    if len(profiles) > _LISTED:
        yield f"  and {len(profiles) - _LISTED} more"


def _from_trace(profile: TracedProfile, max_bytes: int) -> Found:
    """The whole profile where the event says that it is, or else what its text tells."""
    name = _file_name(profile.profile_id or f"trace-{profile.trace_id or 'unknown'}")
    url = profile.text_of(semconv.PROFILE_URL)
    notes: list[str] = []
    if url:
        try:
            return Found(_stored(url, max_bytes), name)
        except ReadError as error:
            notes.append(f"The whole profile is not to be had: {error}.")
    text = profile.text_of(semconv.PROFILE_TEXT)
    if not text:
        why = notes[0] if notes else "It has no URL of the whole one either."
        msg = f"The profile's event has no text from which it could be rebuilt. {why}"
        raise ReadError(msg)
    duration = profile.duration
    interval = profile.number_of(semconv.PROFILE_INTERVAL_MS)
    session = session_from_text(
        text,
        Circumstances(
            description=f"{profile.span_name} (trace {profile.trace_id}; rebuilt from the span's text)",
            start_time=min(max(profile.end_time - (duration or 0.0), 0.0), _MAX_TIME - 1),
            duration=duration,
            interval=None if interval is None else interval / 1e3,
            sample_count=int(profile.number_of(semconv.PROFILE_SAMPLE_COUNT) or 0),
        ),
    )
    notes.append("Rebuilt from the text on the span: times are rounded, and the order of the calls is not known.")
    return Found(session, name, tuple(notes))


def _stored(url: str, max_bytes: int) -> Session:
    """The session at a URL that came with a trace, which may be from anywhere.

    Raises:
        ReadError: If there is none.
    """
    if "::" in url:
        msg = f"{shown(url)} is a chain of file systems, which is not followed for a trace"
        raise ReadError(msg)
    address = _beside_html(url)
    documents = _documents(fetch(address, max_bytes), address)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        msg = f"{shown(address)} is no profile. {_EXPECTED}"
        raise ReadError(msg)
    return session_of(documents[0], address)
