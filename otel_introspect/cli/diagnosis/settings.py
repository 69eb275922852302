"""Which of our variables are set, which of them are understood, and what the watchdog makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from otel_introspect import environment_variables as env
from otel_introspect.cli.diagnosis.finding import Finding, note, ok, problem
from otel_introspect.cli.diagnosis.surroundings import OUR_DISTRIBUTION, Surroundings
from otel_introspect.config import (
    FAULTHANDLER_IS_SAFER,
    PREFIX,
    SETTINGS,
    EvidenceConfig,
    WatchdogConfig,
)
from otel_introspect.setting import problem as why_not
from otel_introspect.setting import variables_of

_EXCLUDED_URLS: Final = "OTEL_PYTHON_EXCLUDED_URLS"
_SECRETS: Final = frozenset({env.OTEL_PYTHON_INTROSPECT_PROFILER_KEY, env.OTEL_PYTHON_INTROSPECT_EMAIL_PASSWORD})
_MAX_SHOWN: Final = 80
_MAX_TIMES_SHOWN: Final = 8
# Tempo keeps the first 2048 bytes of a string and drops the rest without a mark.
_TEMPO_BYTES: Final = 2048
# A threshold under this is more likely seconds than milliseconds.
_SHORT_THRESHOLD: Final = 50
_WORD: Final = "INTROSPECT"
_SAME_WORD: Final = 0.8
_SAME_PREFIX: Final = 0.6
_NEAR: Final = 0.6
_VERY_NEAR: Final = 0.9

KNOWN: Final = frozenset(name for name in vars(env) if name.startswith(PREFIX))
"""Every variable of ours."""


def variables(here: Surroundings) -> Iterator[Finding]:
    """Each variable of ours that is set: its value in force, or why it is not understood."""
    effective = effective_settings(here.environ)
    for config in SETTINGS:
        defaults = _shown_values(config())
        for variable in variables_of(config).values():
            raw = here.value(variable)
            if not raw:
                continue
            why = why_not(config, variable, raw)
            if why:
                said = f"{variable}={_short(raw, variable)} is {why}."
                default = defaults[variable] or "unset"
                yield problem(
                    "variable", f"{said} It is ignored; the default, {default}, is in force.", "Correct it or unset it."
                )
            else:
                yield ok("variable", f"{variable}={effective[variable]}")
    yield from _general_excluded_urls(here)


def _general_excluded_urls(here: Surroundings) -> Iterator[Finding]:
    general, own = here.value(_EXCLUDED_URLS), env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS
    if not general or here.value(own):
        return
    why = why_not(EvidenceConfig, own, general)
    if why:
        yield problem(
            "variable", f"{_EXCLUDED_URLS}={_short(general)} is {why}. We ignore it.", "Correct it or unset it."
        )
    else:
        yield ok("variable", f"{_EXCLUDED_URLS}={_short(general)} (as {own} is not set)")


def mistyped(here: Surroundings) -> Iterator[Finding]:
    """Variables that look as if they were meant for us, with the nearest that is ours."""
    for name in sorted(here.environ):
        if name in KNOWN:
            continue
        meant = nearest(name)
        if meant:
            yield problem("variable", f"{name} is not a variable of ours and has no effect.", f"Did you mean {meant}?")
        elif name.upper().startswith(PREFIX):
            yield problem(
                "variable",
                f"{name} is not a variable of ours and has no effect.",
                f"Unset it; {OUR_DISTRIBUTION}'s reference lists the variables.",
            )


def nearest(name: str) -> str | None:
    """The variable of ours that *name* was probably meant to be, or None if it is somebody else's.

    >>> nearest("OTEL_INTROSPECT_WATCHDOG_TRESHOLD")
    'OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD'
    >>> nearest("OTEL_PYTHON_DJANGO_EXCLUDED_URLS") is None
    True
    """
    words = name.upper().replace("-", "_").split("_")
    at = next((index for index, word in enumerate(words) if _alike(word, _WORD) >= _SAME_WORD), None)
    if at is None:
        # No word of it says that it is ours, so it must be nearly one of ours as a whole.
        close = get_close_matches(name.upper(), sorted(KNOWN), 1, _VERY_NEAR)
        return close[0] if close else None
    prefix, rest = words[:at], words[at + 1 :]
    if not prefix:
        # INTROSPECT_TIMEOUT may be anybody's (OAuth has introspection, too); this many words right are no accident.
        exact = PREFIX + "_".join(rest)
        return exact if exact in KNOWN and len(rest) > 1 else None
    if any(max(_alike(word, "OTEL"), _alike(word, "PYTHON")) < _SAME_PREFIX for word in prefix):
        return None
    return _nearest_rest(rest)


def _nearest_rest(rest: list[str]) -> str | None:
    rests = sorted(name.removeprefix(PREFIX) for name in KNOWN)
    close = get_close_matches("_".join(rest), rests, 1, _NEAR)
    if close:
        return PREFIX + close[0]
    # THRESHOLD for WATCHDOG_THRESHOLD, KEY for PROFILER_KEY: too short for a ratio, but right as far as it goes.
    holding = [each for each in rests if any(rest) and set(rest) <= set(each.split("_"))]
    return PREFIX + holding[0] if len(holding) == 1 else None


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def watchdog(here: Surroundings) -> Iterator[Finding]:
    """What the watchdog will do, in a sentence."""
    config = watchdog_config(here.environ)
    variable = env.OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD
    if config.threshold == 0:
        yield problem(
            "watchdog", f"off ({variable}=0): no slow request is recorded.", f"Unset {variable}, or set milliseconds."
        )
        return
    yield ok("watchdog", sentence(config))
    if config.threshold < _SHORT_THRESHOLD:
        yield note(
            "watchdog",
            f"{variable}={config.threshold} is in milliseconds: nearly every request will count as slow.",
            f"If {config.threshold} seconds were meant: {variable}={config.threshold * 1000}",
        )


def sentence(config: WatchdogConfig) -> str:
    """What the watchdog will do.

    >>> sentence(WatchdogConfig(threshold=250, max_snapshots=2))
    'An entry span open longer than 250 ms gets up to 2 snapshots, at 250, 500 ms.'
    """
    times = [config.threshold * 2**index for index in range(min(config.max_snapshots, _MAX_TIMES_SHOWN))]
    in_seconds = config.threshold % 1000 == 0
    shown = ", ".join(str(each // 1000 if in_seconds else each) for each in times)
    more = " and so on" if config.max_snapshots > _MAX_TIMES_SHOWN else ""
    count = "one snapshot" if config.max_snapshots == 1 else f"up to {config.max_snapshots} snapshots"
    when = f"{shown} {'s' if in_seconds else 'ms'}{more}"
    threads = " The stacks of the other threads are added once." if config.all_threads else ""
    return f"An entry span open longer than {config.threshold} ms gets {count}, at {when}.{threads}"


def observers(here: Surroundings) -> Iterator[Finding]:
    """Who can take the snapshots in this process."""
    config = watchdog_config(here.environ)
    variable = env.OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS
    if not here.interpreter.gil:
        yield problem(
            "observers",
            "none: without the GIL it is not safe to look at the stack of a running thread.",
            "Start Python with the GIL on (PYTHON_GIL=1), or use a build that has it.",
        )
        return
    if "thread" not in config.observers:
        yield problem(
            "observers",
            f"none: {variable} names only {', '.join(config.observers)}, and without thread nothing is watched.",
            f"Unset {variable}, or add thread to it.",
        )
        return
    yield ok(
        "observers",
        "thread: sees sleep, I/O, locks and Python code; a C call that keeps the GIL (a regular expression, a sort) is "
        "seen only once it ends",
    )
    if "signal" in config.observers:
        yield ok("observers", "signal: sees the main thread, also in a regular expression, unless SIGALRM is taken")
    if "faulthandler" in config.observers:
        message = "faulthandler: sees any thread that keeps the GIL, unless faulthandler's timer is taken"
        yield (
            ok("observers", message)
            if FAULTHANDLER_IS_SAFER  # the doctor runs on the Python that the application gets
            else note("observers", f"{message}; on this Python there is a small chance that its thread crashes")
        )


def evidence(here: Surroundings) -> Iterator[Finding]:
    """Where the evidence goes, and how much of it."""
    config = evidence_config(here.environ)
    if config.max_attribute_bytes > _TEMPO_BYTES:
        yield note(
            "evidence",
            f"texts of up to {config.max_attribute_bytes} bytes: Tempo keeps the first {_TEMPO_BYTES} of a string, so "
            "that the innermost frames, which come last, would be lost there.",
        )


def understood(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* without the values that are not understood, so that reading it warns of nothing."""
    kept = dict(environ)
    for config in SETTINGS:
        for variable in variables_of(config).values():
            if why_not(config, variable, environ.get(variable, "")):
                del kept[variable]
    if why_not(EvidenceConfig, env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS, environ.get(_EXCLUDED_URLS, "")):
        del kept[_EXCLUDED_URLS]
    return kept


def watchdog_config(environ: Mapping[str, str]) -> WatchdogConfig:
    """The watchdog's settings in force."""
    return WatchdogConfig.from_env(understood(environ))


def evidence_config(environ: Mapping[str, str]) -> EvidenceConfig:
    """The evidence's settings in force."""
    return EvidenceConfig.from_env(understood(environ))


def effective_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The value in force of every variable of ours, as one would write it, secrets masked."""
    kept = understood(environ)
    shown: dict[str, str] = {}
    for config in SETTINGS:
        shown.update(_shown_values(config.from_env(kept)))
    return shown


def _shown_values(config: Any) -> dict[str, str]:  # noqa: ANN401 - any of the settings classes
    return {
        variable: _written(getattr(config, name), variable) for name, variable in variables_of(type(config)).items()
    }


def _written(value: object, variable: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return _short(str(value), variable) if isinstance(value, str) else str(value)


def _short(text: str, variable: str = "") -> str:
    if not text:
        return ""
    if variable in _SECRETS:
        return "<set>"
    text = without_password(text)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def without_password(url: str) -> str:
    """A URL fit to be shown: who logs in there, and with what, is masked.

    >>> without_password("https://me:secret@collector:4318/v1")
    'https://<masked>@collector:4318/v1'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        head, at, tail = url.rpartition("@")
        return f"{head.partition('://')[0]}://<masked>@{tail}" if at else url
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"<masked>@{parts.netloc.rpartition('@')[2]}"))
