"""How many requests the server of this process can serve at a time, where that can be told.

What is wanted: how near a worker is to having nobody left for the next request, which is what a few slow requests do
to it.

What does not work: asking for threads that are idle, as servers start them when they like, and use them for other
things.

So: the server's own limit. Gunicorn's workers are told of by our adapter, uWSGI says it itself, and uvicorn has it
among its arguments. Nothing is imported for it, and nobody's variables are read.

What can still fail: limits in between, as that of a pool for synchronous views under ASGI, are not known; a server that
is started from code says nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

_UVICORN_OPTION: Final = "--limit-concurrency"
_UVICORN_VARIABLE: Final = "UVICORN_LIMIT_CONCURRENCY"
_GUNICORN: Final = {
    "gunicorn.workers.sync": "",
    "gunicorn.workers.gthread": "threads",
    "gunicorn.workers.ggevent": "worker_connections",
    "gunicorn.workers.geventlet": "worker_connections",
}
"""By the module of a worker's class, the setting that limits it; empty for those that serve one request at a time."""


class Capacity(NamedTuple):
    """What a server can do.

    Args:
        limit: How many requests at a time.
        server: Which server.
    """

    limit: int
    server: str


_noted: Capacity | None = None


def note(capacity: Capacity | None) -> None:
    """Remember what an adapter knows of the server."""
    global _noted  # noqa: PLW0603 - one for the process
    _noted = capacity


def capacity() -> Capacity | None:
    """What the server of this process can do; None if that can't be told."""
    return _noted or _uwsgi() or _uvicorn(sys.argv)


def of_gunicorn(worker: Any) -> Capacity | None:  # noqa: ANN401 - gunicorn is not ours to import
    """What a worker of gunicorn's can do; None for a kind that is not known, or without a limit."""
    for each in type(worker).__mro__:
        # The kinds know each other: gthread's is one of gunicorn's base, as all are, not of sync's.
        if each.__module__ in _GUNICORN:
            setting = _GUNICORN[each.__module__]
            return _of(getattr(worker.cfg, setting) if setting else 1, f"gunicorn {each.__module__.rpartition('.')[2]}")
    limit = getattr(getattr(worker, "config", None), "limit_concurrency", None)  # uvicorn's
    return _of(limit, "gunicorn uvicorn")


def _uwsgi() -> Capacity | None:
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if not isinstance(options, dict):
        return None
    found = {name.decode() if isinstance(name, bytes) else name: value for name, value in options.items()}
    return _of(found.get("async") or found.get("gevent") or found.get("threads") or 1, "uwsgi")


def _uvicorn(arguments: Sequence[str]) -> Capacity | None:
    # The script's own name, or that of the package whose __main__ it is.
    if "uvicorn" not in sys.modules or not arguments or "uvicorn" not in Path(arguments[0]).parts[-2:]:
        return None
    given = list(arguments)
    for at, each in enumerate(given):
        name, equals, value = each.partition("=")
        if name == _UVICORN_OPTION:
            return _of(value if equals else (given[at + 1 : at + 2] or [""])[0], "uvicorn")
    return _of(os.environ.get(_UVICORN_VARIABLE), "uvicorn")


def _of(limit: object, server: str) -> Capacity | None:
    with suppress(ValueError, TypeError):
        number = int(limit)  # type: ignore[call-overload] # whatever it is, int() says whether it is a number
        if number > 0:
            return Capacity(number, server)
    return None
