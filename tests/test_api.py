"""What the package offers, and what importing it does not do."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib.metadata import version

import pytest

import otel_introspect
from otel_introspect.exemption import exempt
from otel_introspect.snapshots import snapshot

# Reads of the environment are told apart by who reads: OpenTelemetry's own modules do read at import.
WATCH = """
import json, os, signal, sys, threading

read = []


def spy(name):
    original = getattr(os._Environ, name)

    def spied(self, *args):
        frame = sys._getframe(1)
        while frame.f_globals["__name__"] in ("os", "_collections_abc", "collections.abc"):
            frame = frame.f_back
        if frame.f_globals["__name__"].startswith("otel_introspect"):
            read.append(frame.f_globals["__name__"])
        return original(self, *args)

    setattr(os._Environ, name, spied)


for name in ("__getitem__", "__iter__", "__len__"):
    spy(name)

handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
before = set(sys.modules)

%s

print(json.dumps({
    "read": read,
    "threads": [thread.name for thread in threading.enumerate()],
    "signals": [number for number, handler in handlers.items() if signal.getsignal(number) != handler],
    "timer": signal.getitimer(signal.ITIMER_REAL)[0],
    "hooks": [repr(hook) for hook in (sys.gettrace(), sys.getprofile()) if hook],
    "loaded": sorted(set(sys.modules) - before),
}))
"""

EVERY_MODULE = """
import importlib, pkgutil
import otel_introspect


def load_all(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not module.name.startswith(%r):
            loaded = importlib.import_module(module.name)
            if module.ispkg:
                load_all(loaded)


load_all(otel_introspect)
"""

MAY_LOAD_DJANGO = ("otel_introspect.demo", "otel_introspect.instrumentation.django")
MAY_LOAD_CLICK = ("otel_introspect.cli",)
MAY_LOAD_RICH = ("otel_introspect.exporters.terminal",)


def after(code: str) -> dict:
    """What a fresh process looks like after running *code*."""
    program = WATCH % textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packages(seen: dict) -> set[str]:
    return {name.partition(".")[0] for name in seen["loaded"]}


def assert_untouched(seen: dict) -> None:
    assert seen["threads"] == ["MainThread"]
    assert seen["signals"] == []
    assert seen["timer"] == 0
    assert seen["hooks"] == []
    assert seen["read"] == []


def test_all_is_what_there_is():
    """
    ``__all__`` is what ``dir`` shows, in order, and each name of it is there.
    """
    assert otel_introspect.__all__ == dir(otel_introspect) == sorted(otel_introspect.__all__)
    assert otel_introspect.__all__ == [
        "DeadlineExceeded",
        "Quota",
        "__version__",
        "disable_timeouts",
        "exempt",
        "profile",
        "snapshot",
        "timeout",
    ]
    assert otel_introspect.exempt is exempt
    assert otel_introspect.snapshot is snapshot
    assert otel_introspect.__version__ == version("otel-introspect")


def test_star_import():
    """
    ``from otel_introspect import *`` brings exactly that.
    """
    names: dict[str, object] = {}
    exec("from otel_introspect import *", names)

    assert names.keys() - {"__builtins__"} == set(otel_introspect.__all__)


@pytest.mark.parametrize("name", ["snapshots_", "TYPE", "exemptt", "__path_of_it__"])
def test_there_is_nothing_else(name):
    """
    Any other name is an ``AttributeError`` that says so, as for every module.
    """
    with pytest.raises(AttributeError, match=f"module 'otel_introspect' has no attribute '{name}'"):
        getattr(otel_introspect, name)


def test_importing_the_package_loads_nothing():
    """
    The package itself loads no module of ours nor of anybody else, so that the launcher pays for one module only.
    """
    seen = after("import otel_introspect")

    assert_untouched(seen)
    assert [name for name in seen["loaded"] if name.startswith("otel_introspect")] == ["otel_introspect"]
    assert packages(seen) <= {"otel_introspect", "typing", "__future__", *sys.stdlib_module_names}


def test_importing_every_module_does_nothing():
    """
    No import of ours starts a thread, touches a POSIX signal, sets a hook or reads the environment.
    """
    # The shop is Django's: its models want its settings. Gunicorn's file is read by gunicorn.
    assert_untouched(after(EVERY_MODULE % (("otel_introspect.demo.shop", "otel_introspect.demo.gunicorn_conf"),)))


def test_optional_packages_are_loaded_only_where_they_are_used():
    """
    Beside the adapter for Django, the terminal and the commands, no module loads what is optional or heavy.
    """
    apart = MAY_LOAD_DJANGO + MAY_LOAD_CLICK + MAY_LOAD_RICH

    assert packages(after(EVERY_MODULE % (apart,))).isdisjoint({"django", "rich", "pyinstrument", "click", "gunicorn"})


@pytest.mark.parametrize(
    "module",
    [
        "otel_introspect.instrumentation.introspect",
        "otel_introspect.instrumentation.django",
        "otel_introspect.instrumentation.gunicorn",
        "otel_introspect.exporters.console",
        "otel_introspect.exporters.mail",
        "otel_introspect.exporters.report_files",
        "otel_introspect.exporters.report_log",
        "otel_introspect.environment_variables",
    ],
)
def test_entry_points_load_nothing_heavy(module):
    """
    What every start of every instrumented process loads brings neither Django nor rich nor click with it.
    """
    seen = after(f"import {module}")

    assert_untouched(seen)
    assert packages(seen).isdisjoint({"django", "rich", "pyinstrument", "click"})


def test_a_start_loads_nothing_that_only_some_need():
    """
    With all instrumentors on, nothing is loaded that takes variables, makes log records or tells people of requests.
    """
    seen = after(
        """
        import os
        os.environ["OTEL_PYTHON_INTROSPECT_RECORDER_DIR"] = "none"  # in which others may have left something
        from opentelemetry.sdk.trace import TracerProvider
        from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
        from otel_introspect.instrumentation.gunicorn import IntrospectGunicornInstrumentor
        from otel_introspect.instrumentation.introspect import IntrospectInstrumentor

        provider = TracerProvider()
        for each in (IntrospectInstrumentor, IntrospectDjangoInstrumentor, IntrospectGunicornInstrumentor):
            each().instrument(tracer_provider=provider)
        """
    )
    ours = {name.removeprefix("otel_introspect.") for name in seen["loaded"] if name.startswith("otel_introspect.")}

    assert {name for name in ours if name.startswith("exporters")} == {"exporters", "exporters.offers"}
    assert {name for name in ours if name.startswith(("cli", "demo", "sinks.log"))} == set()
    assert ours.isdisjoint({"engine.locals", "engine.redaction", "engine.safe_repr", "processors.event_bridge"})
    assert seen["threads"] == ["MainThread"]


def test_the_engine_needs_the_standard_library_only():
    """
    The engine can be imported without OpenTelemetry.
    """
    seen = after("import otel_introspect.engine.watchdog, otel_introspect.engine.introspector")

    assert packages(seen) <= {"otel_introspect", *sys.stdlib_module_names}
