"""The instrumentor ``introspect_gunicorn``: wraps what a worker does when the arbiter gives up on it.

Nothing of gunicorn is imported here: its workers are patched when, and only if, somebody imports them. That is in the
arbiter, before it forks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from types import ModuleType
from typing import Any, Final

from wrapt import register_post_import_hook

from otel_introspect import capacity
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.base import BaseInstrumentor
from otel_introspect.introspection import active

_WORKERS_MODULE: Final = "gunicorn.workers.base"
_ARBITER_MODULE: Final = "gunicorn.arbiter"
_ORIGINAL: Final = "_otel_introspect_original"


class IntrospectGunicornInstrumentor(BaseInstrumentor):
    """Has the request of a worker that gunicorn gives up on say where it was stuck; takes no settings of its own.

    It also has those of a worker that was killed sent off. The user's own hooks (``worker_abort``, ``worker_exit``,
    ``child_exit``) run as they would without us.
    """

    _hooked = False
    _worker: type[Any] | None = None
    _arbiter: type[Any] | None = None
    _on = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: without gunicorn there is simply nothing to do."""
        return ()

    def _instrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - OpenTelemetry's signature
        # An exception from here would keep the launcher from running the instrumentors after this one.
        with fail_open("setting up for gunicorn"):
            self._on = True
            if self._worker is not None:
                self._patch(self._worker)
            if self._arbiter is not None:
                self._patch_arbiter(self._arbiter)
            if not self._hooked:
                # Such a hook can't be taken back, so it asks whether it is still wanted.
                self._hooked = True  # of the singleton that this is
                register_post_import_hook(self._workers_imported, _WORKERS_MODULE)
                register_post_import_hook(self._arbiter_imported, _ARBITER_MODULE)

    def _workers_imported(self, module: ModuleType) -> None:
        with fail_open("setting up for gunicorn"):
            self._worker = module.Worker
            if self._on:
                self._patch(module.Worker)

    def _arbiter_imported(self, module: ModuleType) -> None:
        with fail_open("setting up for gunicorn's arbiter"):
            self._arbiter = module.Arbiter
            if self._on:
                self._patch_arbiter(module.Arbiter)

    def _patch_arbiter(self, arbiter: type[Any]) -> None:
        if not hasattr(arbiter.stop, _ORIGINAL):
            from otel_introspect.instrumentation.gunicorn.arbiter import initializing, managing, reaping, stopping

            _wrap(arbiter, "__init__", initializing(arbiter.__init__, lambda: self._on))
            _wrap(arbiter, "reap_workers", reaping(arbiter.reap_workers))
            _wrap(arbiter, "manage_workers", managing(arbiter.manage_workers, lambda: self._on))
            _wrap(arbiter, "stop", stopping(arbiter.stop, lambda: self._on))

    def _patch(self, worker: type[Any]) -> None:
        if not hasattr(worker.handle_abort, _ORIGINAL):
            # Loaded before the fork, as nothing can be imported by the time it is needed.
            from otel_introspect.instrumentation.gunicorn.last_words import aborting, leaving, quitting

            # A running worker keeps the handler that it has installed, so that too asks whether it is still wanted.
            _wrap(worker, "handle_abort", aborting(worker.handle_abort, lambda: self._on))
            _wrap(worker, "load_wsgi", _loading(worker.load_wsgi))

            def going(each: Any) -> None:  # noqa: ANN401 - gunicorn's worker
                capacity.note(capacity.of_gunicorn(each))
                # On the worker itself, as those of the other kinds have their own.
                each.handle_quit = quitting(each.handle_quit, lambda: self._on)
                each.handle_exit = leaving(each.handle_exit, lambda: self._on, float(each.cfg.graceful_timeout))

            _wrap(worker, "init_process", _beginning(worker.init_process, going))

    def _uninstrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - as above
        with fail_open("switching off for gunicorn"):
            self._on = False
            _unwrap(self._worker, "handle_abort", "load_wsgi", "init_process")
            _unwrap(self._arbiter, "__init__", "reap_workers", "manage_workers", "stop")


def _wrap(owner: type[Any], name: str, wrapper: Callable[..., None]) -> None:
    setattr(wrapper, _ORIGINAL, getattr(owner, name))
    setattr(owner, name, wrapper)


def _unwrap(owner: type[Any] | None, *names: str) -> None:
    for name in names:
        # If somebody has wrapped ours since, it stays, and hands on what it is called for.
        original = getattr(getattr(owner, name, None), _ORIGINAL, None)
        if original is not None:
            setattr(owner, name, original)


def _beginning(original: Callable[..., None], prepare: Callable[[Any], None]) -> Callable[..., None]:
    @wraps(original)
    def init_process(self: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        with fail_open("getting a worker ready to go"):
            prepare(self)
        original(self)

    return init_process


def _loading(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def load_wsgi(self: Any) -> None:  # noqa: ANN401 - gunicorn's signature
        with fail_open("getting a worker ready"):
            introspection = active()
            if introspection is not None:
                introspection.recovers = True  # unlike the arbiter that it was forked from
                introspection.prepare()
        original(self)

    return load_wsgi
