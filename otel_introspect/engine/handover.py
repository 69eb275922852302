"""Which request a thread of a pool works for.

What is wanted: a request that waits for work which it has handed to a pool is seen at that work.

What does not work: asking the context variables of that thread, which only the thread itself can read; and a pool that
is asked directly does not take them along.

So: whoever starts an entry span notes its key in a context variable, which asyncio hands on to child tasks and to
``to_thread``. Whatever is submitted to a pool is wrapped, and tells which request it belongs to while it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from otel_introspect.engine.native import get_ident


class Within(NamedTuple):
    """A part of a request that has a key of its own."""

    key: Hashable
    outer: Origin


Origin = Hashable | Within
"""Whose work it is: the key of an entry span, or of a part within another; None if it is nobody's."""

current: Final[ContextVar[Origin]] = ContextVar("otel_introspect_origin", default=None)
"""Whose work is done here. Also in the next request on this thread, until that says its own."""

working: Final[dict[int, Origin]] = {}
"""For whom the threads of pools are at work now, by thread id."""


def origin_here() -> Origin:
    """Whose work is done here."""
    return current.get()


def belongs_to(origin: Origin, key: Hashable) -> bool:
    """Whether work of *origin* is done for *key*."""
    while isinstance(origin, Within):
        if origin.key == key:
            return True
        origin = origin.outer
    return origin == key


def handed_over(function: Callable[..., Any], origin: Origin) -> Callable[..., Any]:
    """*function*, which is going to run on another thread for *origin*."""

    def work_for_request(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they are
        thread_id = get_ident()
        before = working.get(thread_id)
        working[thread_id] = origin
        # What is handed on from here is its work, too, unless a request begins here.
        token = current.set(origin)
        try:
            return function(*args, **kwargs)
        finally:
            current.reset(token)
            if before is None:
                working.pop(thread_id, None)
            else:
                working[thread_id] = before

    return work_for_request


_WORK: Final[CodeType] = next(
    each for each in handed_over.__code__.co_consts if isinstance(each, CodeType) and each.co_name == "work_for_request"
)


def threads_of(key: Hashable) -> list[int]:
    """The threads that are at work for *key*."""
    return [thread_id for thread_id, origin in list(working.items()) if belongs_to(origin, key)]


def work_on(frame: FrameType | None) -> list[FrameType]:
    """The frames of what a thread of a pool is at, innermost first, without the pool's own; none if it only waits."""
    inside: list[FrameType] = []
    while frame is not None:
        if frame.f_code is _WORK:
            return inside
        inside.append(frame)
        frame = frame.f_back
    return []


def _files_of(*names: str) -> frozenset[str]:
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return frozenset(file for file in files if file)


def is_waiting(frame: FrameType) -> bool:
    """Whether a thread that is in *frame* waits for another one."""
    # Asked anew, as some of them are loaded late.
    return frame.f_code.co_filename in _files_of("threading", "queue", "concurrent.futures._base", "selectors")


def after_fork() -> None:
    """In a forked child no other thread is at work."""
    mine = working.get(get_ident())
    working.clear()
    if mine is not None:
        working[get_ident()] = mine
