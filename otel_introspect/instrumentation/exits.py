"""Where it is learnt that the process is about to end, while there is still time to say so on the open spans.

``atexit`` is enough wherever the interpreter exits in an orderly way: SystemExit, the end of the script, a server that
returns from its loop. Ours is registered after the tracer provider's own, and so runs before that.

Some end without it: uvicorn sends itself again the POSIX signal that it was told to stop by, which then kills it, and
Celery's children leave by ``os._exit``. So these are wrapped when, and only if, somebody imports them. There whatever
else has finished is exported too, as nobody would do it later.

Under a POSIX signal that nobody handles the process just dies: no handler of ours is installed for that.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from functools import wraps
from sys import modules
from types import ModuleType
from typing import Any, Final

from opentelemetry import trace
from wrapt import register_post_import_hook

from otel_introspect.faults import fail_open
from otel_introspect.introspection import Introspection

_UVICORN: Final = "uvicorn.server"
_CELERY: Final = "celery.signals"
_REPORTING: Final = "otel_introspect.exporters.reporting"
# How long the last log records may take; the logger provider is shut down next.
_SECONDS: Final = 1.0
_ORIGINAL: Final = "_otel_introspect_original"

_watched: Introspection | None = None
_hooked = False


def watch(introspection: Introspection) -> None:
    """Have the open spans of *introspection* ended with the process; in place of those of an earlier one."""
    global _watched, _hooked  # noqa: PLW0603 - a process ends once
    _watched = introspection
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)  # again, so that it comes before the provider's, which may be a new one
    if not _hooked:
        # Such hooks can't be taken back, so what they install asks whether it is still wanted.
        _hooked = True
        register_post_import_hook(_uvicorn_imported, _UVICORN)
        register_post_import_hook(_celery_imported, _CELERY)


def watch_no_more() -> None:
    """Leave the process's end alone."""
    global _watched  # noqa: PLW0603 - as above
    _watched = None
    atexit.unregister(_at_exit)


def _end(introspection: Introspection, *, export: bool) -> None:
    with fail_open("ending open spans with the process"):
        from otel_introspect.endings import end_open_spans  # few processes need it

        end_open_spans(introspection, export=export)
    # Nor would anybody shut the exporters down.
    reporting = modules.get(_REPORTING) if export else None
    if reporting is not None:
        with fail_open("telling of the last slow requests"):
            reporting.tell_last()


def _at_exit() -> None:
    introspection = _watched
    if introspection is None:
        return
    if not introspection.table:
        with fail_open("emitting the last log records"):
            introspection.see_off_records(_SECONDS)
        return
    provider = introspection.tracer_provider or trace.get_tracer_provider()
    # Its own hook is next, and exports what is finished; unless it was told not to have one.
    exports_by_itself = getattr(provider, "_atexit_handler", None) is not None
    _end(introspection, export=not exports_by_itself)


def _uvicorn_imported(module: ModuleType) -> None:
    with fail_open("setting up for uvicorn"):
        server: Any = module.Server
        # Earlier versions do not send themselves the signal again.
        serve = getattr(server, "_serve", None)
        if serve is not None and not hasattr(serve, _ORIGINAL):
            server._serve = _serving(serve)  # noqa: SLF001 - serve() sends the signal itself


def _serving(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(original)
    async def _serve(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's signature
        await original(self, *args, **kwargs)
        introspection = _watched
        if introspection is not None and getattr(self, "_captured_signals", None):
            for _ in range(_TURNS):  # what was cancelled may unwind, and end its spans by itself
                await asyncio.sleep(0)
            _end(introspection, export=True)

    setattr(_serve, _ORIGINAL, original)
    return _serve


_TURNS: Final = 10


def _celery_imported(module: ModuleType) -> None:
    with fail_open("setting up for Celery"):
        module.worker_process_shutdown.connect(_celery_child_ends, weak=False, dispatch_uid=__name__)


def _celery_child_ends(**_about: Any) -> None:  # noqa: ANN401 - Celery's signature
    introspection = _watched
    if introspection is not None:
        _end(introspection, export=True)
