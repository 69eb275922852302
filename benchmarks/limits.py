"""Other ways to limit how long something takes, each only where it can be imported."""

from __future__ import annotations

import importlib
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Final

from otel_introspect import timeout
from otel_introspect.timeouts import release

OURS: Final = "otel_introspect"
INTERRUPTINGCOW: Final = "interruptingcow"
STOPIT_SIGNAL: Final = "stopit, signal"
STOPIT_THREAD: Final = "stopit, thread"
TIMEOUT_DECORATOR: Final = "timeout-decorator"

Block = Callable[[int], AbstractContextManager[Any]]
"""Makes a block that may take so many seconds."""
Run = Callable[[float, Callable[[], object]], object]
"""Calls a function, which may take so many seconds."""


class Expired(Exception):  # noqa: N818 - what it says is the point
    """What a limit raises, where that can be chosen."""


def missing() -> list[str]:
    """For each peer that can't be imported a sentence that says so."""
    found = {name: _imported(name) for name in ("interruptingcow", "stopit", "timeout_decorator")}
    return [f"{name} can't be imported here: {why}." for name, why in found.items() if isinstance(why, ImportError)]


def blocks() -> dict[str, Block]:
    """What makes a block, called in the same way for all."""
    found: dict[str, Block] = {OURS: timeout, f"{OURS}, again": timeout}
    if isinstance(cow := _imported("interruptingcow"), ModuleType):
        found[INTERRUPTINGCOW] = cow.timeout
    if isinstance(stopit := _imported("stopit"), ModuleType):
        found[STOPIT_SIGNAL] = stopit.SignalTimeout
        found[STOPIT_THREAD] = stopit.ThreadingTimeout
    return found


def decorators() -> dict[str, Callable[[int], Callable[..., Any]]]:
    """The same as decorators."""
    found: dict[str, Callable[[int], Callable[..., Any]]] = {OURS: timeout, f"{OURS}, again": timeout}
    if isinstance(cow := _imported("interruptingcow"), ModuleType):
        found[INTERRUPTINGCOW] = cow.timeout
    if isinstance(module := _imported("timeout_decorator"), ModuleType):
        found[TIMEOUT_DECORATOR] = module.timeout
    return found


def runs() -> dict[str, Run]:
    """Ways to run something that will be interrupted, after less than a second; all raise ``Expired``."""
    found: dict[str, Run] = {OURS: _in_ours}
    if isinstance(cow := _imported("interruptingcow"), ModuleType):
        found[INTERRUPTINGCOW] = _in_block(lambda seconds: cow.timeout(seconds, Expired))
    if isinstance(stopit := _imported("stopit"), ModuleType):
        # The other way of stopit's takes whole seconds only. What it raises can't be chosen.
        stopit.threadstop.TimeoutException = Expired
        stopit.utils.TimeoutException = Expired
        found[STOPIT_THREAD] = _in_block(lambda seconds: stopit.ThreadingTimeout(seconds, swallow_exc=False))
    if isinstance(module := _imported("timeout_decorator"), ModuleType):
        found[TIMEOUT_DECORATOR] = lambda seconds, work: module.timeout(seconds, timeout_exception=Expired)(work)()
    return found


def give_back() -> None:
    """SIGALRM is nobody's again: interruptingcow wants to be alone, and nobody else puts it back."""
    release()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _in_ours(seconds: float, work: Callable[[], object]) -> object:
    with timeout(seconds, Expired):
        return work()


def _in_block(make: Callable[[float], AbstractContextManager[Any]]) -> Run:
    def run(seconds: float, work: Callable[[], object]) -> object:
        with make(seconds):
            return work()

    return run


def _imported(name: str) -> ModuleType | ImportError:
    if name not in sys.modules:
        try:
            with warnings.catch_warnings():
                # Of `is` with a number, and of pkg_resources.
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except ImportError as error:
            return error
    return sys.modules[name]
