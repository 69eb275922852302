"""What the arbiter does about a worker that has died in the midst of its requests.

What is wanted: these requests are sent off soon, also if no other worker is there to do it: since the new one fails to
boot, say, or since all are told to stop and are killed in the end.

What does not work: doing so where the arbiter learns of it, which with older versions of gunicorn is the handler of
a POSIX signal. Nor in the arbiter's main loop, nor on a thread beside it: an exporter would have connections open then,
and each worker that is forked later would share them.

So: where workers are reaped it is only noted that one has gone; the user's own ``child_exit`` has been called by then.
A moment later, in the main loop, it is looked whether there still is anything to recover: a worker that was forked in
the place of the dead one has seen to it as a rule. If there is, a child does it that is forked for that alone. When all
workers have been stopped no other will be forked: then the arbiter does it itself, and waits a few seconds for it.

What can still fail: whoever ends the arbiter by SIGKILL leaves all to the next start in that directory.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Final, NoReturn

from otel_introspect.engine.native import allocate_lock
from otel_introspect.faults import count, fail_open
from otel_introspect.introspection import Introspection, active

_REAPED: Final = "_otel_introspect_reaped"
_WORKERS: Final = "WORKERS"  # asked for by name, as a gunicorn without it must go on all the same
# The worker that was forked instead needs so long to see to it.
_PATIENCE: Final = 0.8
_CHILD_SECONDS: Final = 60
_STOP_SECONDS: Final = 5.0


def initializing(original: Callable[..., None], wanted: Callable[[], bool]) -> Callable[..., None]:
    """``Arbiter.__init__``: from here on this process is one that forks workers."""

    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807 - gunicorn's signature
        with fail_open("setting up for gunicorn's arbiter"):
            introspection = active()
            if wanted() and introspection is not None:
                introspection.recovers = False
        original(self, *args, **kwargs)

    return __init__


def reaping(original: Callable[..., None]) -> Callable[..., None]:
    """``Arbiter.reap_workers``: maybe in a handler of a POSIX signal, so it only takes down the time."""

    @wraps(original)
    def reap_workers(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        workers = len(getattr(self, _WORKERS, ()))
        try:
            original(self, *args, **kwargs)
        finally:
            if len(getattr(self, _WORKERS, ())) != workers:
                setattr(self, _REAPED, time.monotonic())

    return reap_workers


def managing(original: Callable[..., None], wanted: Callable[[], bool]) -> Callable[..., None]:
    """``Arbiter.manage_workers``: comes round once a second, in the main loop."""

    @wraps(original)
    def manage_workers(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        original(self, *args, **kwargs)
        reaped = getattr(self, _REAPED, None)
        if reaped is not None and wanted() and time.monotonic() - reaped >= _PATIENCE:
            setattr(self, _REAPED, None)
            with fail_open("recovering what a worker has left"):
                _recover_apart(self)

    return manage_workers


def stopping(original: Callable[..., None], wanted: Callable[[], bool]) -> Callable[..., None]:
    """``Arbiter.stop``: after it there are no workers, and will be none."""

    @wraps(original)
    def stop(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        original(self, *args, **kwargs)
        if wanted():
            with fail_open("recovering what workers have left"):
                _recover_here()

    return stop


def _recover_apart(arbiter: Any) -> None:  # noqa: ANN401 - gunicorn is not imported
    introspection = active()
    recovery = None if introspection is None else introspection.recovery
    if introspection is None or recovery is None or not recovery.is_needed():
        return
    try:
        child = os.fork()
    except OSError:  # no memory, or too many processes: the next worker will see to it
        count("failed", "forking to recover what a worker has left")
        return
    if not child:
        _recover_and_exit(arbiter, introspection)


def _recover_and_exit(arbiter: Any, introspection: Introspection) -> NoReturn:  # noqa: ANN401 - as above
    try:
        # The arbiter's handlers only put down what came for its main loop.
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
            signal.signal(each, signal.SIG_DFL)
        signal.alarm(_CHILD_SECONDS)
        # Or nobody could listen there for as long as this takes.
        for listener in arbiter.LISTENERS:
            with suppress(Exception):
                listener.close()
        recovery = introspection.recovery
        if recovery is not None:
            recovery.run()
    finally:
        # Not 1, which the arbiter would log as a worker's.
        os._exit(0)


def _recover_here() -> None:
    introspection = active()
    if introspection is None or introspection.recovers:
        return  # a worker, in which an arbiter is stopped as it was forked
    introspection.recovers = True
    recovery = introspection.recovery
    if recovery is None or not recovery.is_needed():
        return
    done = allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            recovery.run()
        finally:
            done.release()

    if introspection.courier.run(run):
        done.acquire(timeout=_STOP_SECONDS)
