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

from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.base import BaseInstrumentor
from otel_introspect.introspection import active

_WORKERS_MODULE: Final = "gunicorn.workers.base"
_ORIGINAL: Final = "_otel_introspect_original"


class IntrospectGunicornInstrumentor(BaseInstrumentor):
    """Has the request of a worker that gunicorn gives up on say where it was stuck; takes no settings of its own.

    The user's own hooks (``worker_abort``, ``worker_exit``) run as they would without us, with their worker, after our
    part.
    """

    _hooked = False
    _worker: type[Any] | None = None
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
            elif not self._hooked:
                # Such a hook can't be taken back, so it asks whether it is still wanted.
                self._hooked = True  # of the singleton that this is
                register_post_import_hook(self._workers_imported, _WORKERS_MODULE)

    def _workers_imported(self, module: ModuleType) -> None:
        with fail_open("setting up for gunicorn"):
            self._worker = module.Worker
            if self._on:
                self._patch(module.Worker)

    def _patch(self, worker: type[Any]) -> None:
        if not hasattr(worker.handle_abort, _ORIGINAL):
            # Loaded before the fork, as nothing can be imported by the time it is needed.
            from otel_introspect.instrumentation.gunicorn.last_words import aborting, leaving, quitting

            # A running worker keeps the handler that it has installed, so that too asks whether it is still wanted.
            _wrap(worker, "handle_abort", aborting(worker.handle_abort, lambda: self._on))
            _wrap(worker, "load_wsgi", _loading(worker.load_wsgi))

            def going(each: Any) -> None:  # noqa: ANN401 - gunicorn's worker
                # On the worker itself, as those of the other kinds have their own.
                each.handle_quit = quitting(each.handle_quit, lambda: self._on)
                each.handle_exit = leaving(each.handle_exit, lambda: self._on, float(each.cfg.graceful_timeout))

            _wrap(worker, "init_process", _beginning(worker.init_process, going))

    def _uninstrument(self, **_kwargs: Any) -> None:  # noqa: ANN401 - as above
        with fail_open("switching off for gunicorn"):
            self._on = False
            for name in ("handle_abort", "load_wsgi", "init_process"):
                # If somebody has wrapped ours since, it stays, and hands on what it is called for.
                original = getattr(getattr(self._worker, name, None), _ORIGINAL, None)
                if original is not None:
                    setattr(self._worker, name, original)


def _wrap(worker: type[Any], name: str, wrapper: Callable[..., None]) -> None:
    setattr(wrapper, _ORIGINAL, getattr(worker, name))
    setattr(worker, name, wrapper)


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
                introspection.prepare()
        original(self)

    return load_wsgi
