"""What will be profiled, who may ask for a profile, and where the whole of it goes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.settings import understood
from otel_introspect.cli.diagnosis.surroundings import Surroundings, nearest_directory
from otel_introspect.config import ProfilerConfig, WatchdogConfig

_TOPIC: Final = "profiles"
_SHORT_KEY: Final = 16
_FILE: Final = "file://"
_WHEN: Final = {
    "slow": "requests that turn slow",
    "tail": "requests from the age of 50 ms on, if they turn out slow, fail or hit their deadline",
    "ratio": "a share of all traces",
    "request": "requests that ask for it",
}


def profiles(here: Surroundings) -> Iterator[Finding]:
    """Which requests are profiled, and which settings contradict each other."""
    config = ProfilerConfig.from_env(understood(here.environ))
    if not config.triggers:
        yield note(_TOPIC, f"{env.OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS} is none: only profile() in code takes one.")
        return
    yield ok(_TOPIC, "Profiled are " + "; ".join(_WHEN[trigger] for trigger in config.triggers) + ".")
    yield from _triggers(here, config)
    yield from _requests(config)
    if config.engine == "pyinstrument":
        yield note(
            _TOPIC,
            "pyinstrument's own hook serves requests that ask for a profile, and profile() in code. Others can begin on"
            " another thread than the request's, and are sampled.",
        )
    if config.store:
        yield from _store(config.store)


def _triggers(here: Surroundings, config: ProfilerConfig) -> Iterator[Finding]:
    if "ratio" in config.triggers and not config.ratio:
        yield problem(
            _TOPIC,
            f"The trigger ratio has {env.OTEL_PYTHON_INTROSPECT_PROFILER_RATIO} at 0, so that it profiles nothing.",
            "Set it to the share of traces that you want, 0.01 for one in a hundred.",
        )
    if config.ratio and "ratio" not in config.triggers:
        yield problem(
            _TOPIC,
            f"{env.OTEL_PYTHON_INTROSPECT_PROFILER_RATIO} is {config.ratio:g}, but ratio is not among the triggers.",
            f"Add it to {env.OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS}.",
        )
    threshold = WatchdogConfig.from_env(understood(here.environ)).threshold
    if not threshold and "slow" in config.triggers:
        yield note(_TOPIC, "The watchdog is off, so that no request ever turns slow.")


def _requests(config: ProfilerConfig) -> Iterator[Finding]:
    if "request" not in config.triggers:
        if config.key or config.allow:
            yield problem(
                _TOPIC,
                "A key or a callable is set that may admit requests, but request is not among the triggers.",
                f"Add it to {env.OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS}.",
            )
    elif not config.key and not config.allow:
        yield ok(_TOPIC, "Nothing remote can start one, as no key is set; under Django's DEBUG this machine can.")
    elif 0 < len(config.key) < _SHORT_KEY:
        yield note(
            _TOPIC,
            f"{env.OTEL_PYTHON_INTROSPECT_PROFILER_KEY} has fewer than {_SHORT_KEY} characters, which can be guessed.",
            "Take a random one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )


def _store(location: str) -> Iterator[Finding]:
    if "://" in location and not location.startswith(_FILE):
        if find_spec("fsspec") is None:
            yield problem(
                _TOPIC,
                "Whole profiles are to go to an object store, for which fsspec is missing.",
                "pip install 'otel-introspect[store]' and the package of the protocol (s3fs, gcsfs, ...).",
            )
        return
    directory = Path(location.removeprefix(_FILE))
    _, writable = nearest_directory(directory)
    if not writable:
        yield problem(
            _TOPIC,
            f"Whole profiles are to go to {directory}, where this user can't write.",
            f"Make the directory writable, or set {env.OTEL_PYTHON_INTROSPECT_PROFILER_STORE} to another one.",
        )
    else:
        yield ok(_TOPIC, f"Whole profiles go to {directory}.")
