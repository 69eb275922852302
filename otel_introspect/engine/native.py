"""Threads and locks of the operating system, also where gevent has put its own in their place.

Under gevent's patching a ``threading.Thread`` is a greenlet: it would not run while another one keeps the processor,
which is just when it is needed. gevent keeps the originals.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol


class Lock(Protocol):
    """As much of a ``_thread.lock`` as is needed."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # noqa: FBT001, FBT002, D102 - as in CPython

    def release(self) -> None: ...  # noqa: D102 - as in CPython

    def __enter__(self) -> bool: ...

    def __exit__(self, *_: object) -> None: ...


def _original(name: str) -> Any:  # noqa: ANN401 - whatever the module has under that name
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("_thread"):
        return monkey.get_original("_thread", name)
    return getattr(sys.modules["_thread"], name)


get_ident: Final[Callable[[], int]] = _original("get_ident")
"""The id of the thread of the operating system, from any of its greenlets."""
_get_native_id: Final[Callable[[], int]] = _original("get_native_id")


def is_main_thread() -> bool:
    """Whether the caller runs, in whatever greenlet, on the thread on which handlers of POSIX signals run."""
    if sys.platform == "linux":
        return _get_native_id() == os.getpid()
    return threading.current_thread() is threading.main_thread()


_main_thread = get_ident() if is_main_thread() else threading.main_thread().ident


def main_thread_id() -> int | None:
    """The id of that thread."""
    return _main_thread


def _after_fork_in_child() -> None:
    global _main_thread  # noqa: PLW0603 - the thread that forks is the child's main one
    _main_thread = get_ident()


os.register_at_fork(after_in_child=_after_fork_in_child)


def is_patched() -> bool:
    """Whether gevent has put greenlets in the place of threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def allocate_lock() -> Lock:
    """A lock that blocks the thread, not the greenlet."""
    lock: Lock = _original("allocate_lock")()
    return lock


def start_thread(run: Callable[[], None], name: str) -> None:
    """Start a daemon thread of the operating system.

    Raises:
        RuntimeError: If the interpreter is shutting down or can have no more threads.
    """
    if is_patched():
        _original("start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name=name, daemon=True).start()
