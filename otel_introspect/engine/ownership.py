"""Whose code a frame runs: the application's, a library's, the server's or our own."""

from __future__ import annotations

import os
import re
import sysconfig
from functools import cache, lru_cache
from types import CodeType
from typing import Final

OUR_DIRECTORY: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Those through which a request goes. What we wrap elsewhere may stand around a whole worker (gunicorn's arbiter).
_ADAPTERS: Final = tuple(
    os.path.join(OUR_DIRECTORY, "instrumentation", name, "") for name in ("asgi", "django", "wsgi")
)
# A part of an adapter, too, but one that stands outside OpenTelemetry's own middleware, or that the application calls.
_NO_DOORWAYS: Final = (f"{os.sep}span_guard.py", f"{os.sep}templatetags{os.sep}timelimit.py")

# site-packages by name, not only by this interpreter's paths: an application may add other ones to sys.path.
_LIBRARY_PATH: Final = r"[/\\](site|dist)-packages[/\\]|[/\\]lib[/\\]python3\.\d+t?[/\\]|^<frozen "

# What stands around the application's code on a thread's stack and says nothing about the request: interpreter,
# threads, servers, event loops, and OpenTelemetry's own wrappers around them.
_SURROUNDINGS: Final = r"""
    ^<frozen\ (runpy|importlib)
    | [/\\](site|dist)-packages[/\\](
          gunicorn|uvicorn|hypercorn|daphne|waitress|cheroot|granian|uvloop|gevent|eventlet|asgiref|werkzeug
        | opentelemetry | wrapt | _pytest | pluggy
      )[/\\]
    | [/\\]lib[/\\]python3\.\d+t?[/\\](
          asyncio[/\\] | concurrent[/\\]futures[/\\] | wsgiref[/\\] | multiprocessing[/\\]
        | (threading|socketserver|runpy|selectors|contextlib|http[/\\]server)\.py$
      )
    | [/\\]bin[/\\](gunicorn|uvicorn|hypercorn|daphne|waitress-serve|celery|django-admin|opentelemetry-instrument)$
    """


# Made at the first slow request, not at import: that costs the start of every process, this nobody.
@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, (re.VERBOSE if "\n" in pattern else 0) | re.ASCII)


@cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths}
    return (OUR_DIRECTORY, *sorted(os.path.abspath(path) + os.sep for path in found))


@lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Whether code from *filename* is a library's: installed, standard, frozen into the interpreter, or ours."""
    return filename.startswith(_installed()) or _compiled(_LIBRARY_PATH).search(filename) is not None


def is_application(code: CodeType) -> bool:
    """Whether *code* is the application's own, as opposed to a library's.

    Dunder methods made from text, as ``dataclasses`` and ``namedtuple`` make them, are their library's.
    """
    filename = code.co_filename
    if filename == "<string>" and code.co_name.startswith("__"):
        return False
    return not is_library(filename)


@lru_cache(maxsize=4096)
def is_surroundings(filename: str) -> bool:
    """Whether code from *filename* belongs to what runs the application: the server, the event loop, the thread."""
    return _compiled(_SURROUNDINGS).search(filename) is not None


@lru_cache(maxsize=4096)
def is_ours(filename: str) -> bool:
    """Whether code from *filename* is this package's own."""
    return filename.startswith(OUR_DIRECTORY)


@lru_cache(maxsize=4096)
def is_doorway(filename: str) -> bool:
    """Whether code from *filename* is an adapter of ours, inside which the request's own code begins."""
    return filename.startswith(_ADAPTERS) and not filename.endswith(_NO_DOORWAYS)
