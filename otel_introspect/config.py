"""The settings, as plain data: nothing here starts a thread, touches a POSIX signal or reads the environment itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import make_dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from otel_introspect import environment_variables as env
from otel_introspect.setting import (
    Settings,
    addresses,
    any_of,
    boolean,
    dotted_path,
    integer,
    one_of,
    ratio,
    read,
    sender,
    setting,
    text,
    trace_link,
    url_patterns,
    variables_of,
    view,
    words,
)

PREFIX: Final = "OTEL_PYTHON_INTROSPECT_"
_EXCLUDED_URLS: Final = "OTEL_PYTHON_EXCLUDED_URLS"
_MIN_ATTRIBUTE_BYTES: Final = 64
# faulthandler reads stacks that may change meanwhile: it looks before it leaps from these releases on
# (python/cpython#140815), and may crash the process before them, as 3.13.0 did here.
FAULTHANDLER_IS_SAFER: Final = (3, 13, 10) <= sys.version_info < (3, 14) or sys.version_info >= (3, 14, 1)
DEFAULT_OBSERVERS: Final = ("thread", "signal", "faulthandler") if FAULTHANDLER_IS_SAFER else ("thread", "signal")
TAIL_AGE_MS: Final = 50
"""How old a request is when the trigger ``tail`` begins to sample it: most are over before that, and cost nothing."""


class EvidenceConfig(Settings):
    """Where evidence goes, and how much of it.

    Args:
        events: The sinks, ``span`` and ``log``.
        events_bridge: Whether events that are emitted as log records are put on their span as well.
        excluded_urls: Comma-separated regular expressions, in OpenTelemetry's own reading.
        max_attribute_bytes: The longest string that we attach, in UTF-8 bytes.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    events: tuple[str, ...] = setting(env.OTEL_PYTHON_INTROSPECT_EVENTS, any_of("span", "log"), default=("span",))
    events_bridge: bool = setting(env.OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE, boolean, default=False)
    excluded_urls: str = setting(env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS, url_patterns, default="")
    max_attribute_bytes: int = setting(
        env.OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES, integer(_MIN_ATTRIBUTE_BYTES), default=2000
    )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> EvidenceConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults.

        >>> EvidenceConfig.from_env({"OTEL_PYTHON_EXCLUDED_URLS": "health"}).excluded_urls
        'health'
        """
        environ = os.environ if environ is None else environ
        general = environ.get(_EXCLUDED_URLS, "").strip()
        own = environ.get(env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS, "").strip()
        if general and not own:
            environ = {**environ, env.OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS: general}
        return read(cls, environ, overrides)


class WatchdogConfig(Settings):
    """When an entry span counts as slow, and what is then taken down.

    Args:
        threshold: How long a span may stay open, in milliseconds; 0 turns the watchdog off.
        max_snapshots: How many snapshots a span gets at most.
        observers: Who may take them; ``faulthandler`` by default from Python 3.13.10 on, as it can crash older ones.
        all_threads: Whether the other threads' stacks are taken once, too.
        locals: Whether local variables of the application's frames are taken.
        locals_redact: Comma-separated words in names of what is not to be shown of them, beside the built-in ones.
        checkpoint: Which snapshots leave the process at once.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    threshold: int = setting(env.OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD, integer(0), default=1000)
    max_snapshots: int = setting(env.OTEL_PYTHON_INTROSPECT_WATCHDOG_MAX_SNAPSHOTS, integer(1, 32), default=5)
    observers: tuple[str, ...] = setting(
        env.OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS,
        any_of("thread", "signal", "faulthandler"),
        default=DEFAULT_OBSERVERS,
    )
    all_threads: bool = setting(env.OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS, boolean, default=False)
    locals: bool = setting(env.OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS, boolean, default=False)
    locals_redact: str = setting(env.OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS_REDACT, words, default="")
    checkpoint: str = setting(
        env.OTEL_PYTHON_INTROSPECT_WATCHDOG_CHECKPOINT, one_of("first", "all", "none"), default="first"
    )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> WatchdogConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults.

        >>> WatchdogConfig.from_env({"OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": "250"}).threshold
        250
        """
        return read(cls, environ, overrides)


class ProfilerConfig(Settings):
    """What is profiled, how, and who may ask for it.

    Args:
        triggers: What makes a request be profiled.
        interval: Sampling interval, in milliseconds.
        engine: ``sampler`` or ``pyinstrument``.
        key: The secret that signs requests for a profile; empty refuses every remote one.
        allow: Dotted path of a callable(request) -> bool.
        ratio: Share of entry spans profiled under the trigger ``ratio``.
        store: Directory or fsspec URL for full profiles.
        store_max_count: How many profiles are kept there; the oldest go.
        store_max_bytes: How many bytes they may have together.
        max_duration: Where a profile stops, in milliseconds.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    triggers: tuple[str, ...] = setting(
        env.OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS,
        any_of("slow", "request", "ratio", "tail", alone="none"),
        default=("slow", "request"),
    )
    interval: int = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_INTERVAL, integer(1), default=10)
    engine: str = setting(
        env.OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE, one_of("sampler", "pyinstrument"), default="sampler"
    )
    key: str = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_KEY, text, default="")
    allow: str = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW, dotted_path, default="")
    ratio: float = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_RATIO, ratio, default=0.0)
    store: str = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_STORE, text, default="")
    store_max_count: int = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_COUNT, integer(1), default=1000)
    store_max_bytes: int = setting(
        env.OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_BYTES, integer(1), default=256 * 1024 * 1024
    )
    max_duration: int = setting(env.OTEL_PYTHON_INTROSPECT_PROFILER_MAX_DURATION, integer(1), default=30_000)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> ProfilerConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults."""
        return read(cls, environ, overrides)


class TimeoutConfig(Settings):
    """How long a request may take before it is interrupted.

    Args:
        timeout: The limit, in milliseconds; 0 is none.
        view: Dotted path of a callable(request) that answers instead of the plain 503, or a template's name.
        max_deferral: How long an interruption may wait for a safe place, in milliseconds.
        disabled: Whether no timeout of any kind interrupts.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    timeout: int = setting(env.OTEL_PYTHON_INTROSPECT_TIMEOUT, integer(0), default=0)
    view: str = setting(env.OTEL_PYTHON_INTROSPECT_TIMEOUT_VIEW, view, default="")
    max_deferral: int = setting(env.OTEL_PYTHON_INTROSPECT_TIMEOUT_MAX_DEFERRAL, integer(0), default=1000)
    disabled: bool = setting(env.OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED, boolean, default=False)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> TimeoutConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults."""
        return read(cls, environ, overrides)


class RecorderConfig(Settings):
    """Where the flight recorder keeps its files.

    Args:
        directory: A directory, ``none``, or empty for a private one under the system's temporary directory.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    directory: str = setting(env.OTEL_PYTHON_INTROSPECT_RECORDER_DIR, text, default="")

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> RecorderConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults."""
        return read(cls, environ, overrides)


class EmailConfig(Settings):
    """How ``introspect_email`` sends its mails.

    Args:
        to: Comma-separated addresses; empty for no mails.
        sender: Who they are from; empty for what is usual.
        host: The SMTP server; empty for Django's own settings, or for this machine where there is no Django.
        port: Its port; 0 for the usual one.
        user: Who logs in; empty for nobody.
        password: The password.
        tls: ``none``, ``starttls`` or ``tls``.
        timeout: How long each step may take, in milliseconds.
        max_per_hour: How many mails this process sends in any hour.
        subject_prefix: What each subject begins with.
        link: URL of a trace, with ``{trace_id}`` in it; empty for none.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    to: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_TO, addresses, default="")
    sender: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_FROM, sender, default="")
    host: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_HOST, text, default="")
    port: int = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_PORT, integer(0, 65_535), default=0)
    user: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_USER, text, default="")
    password: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_PASSWORD, text, default="")
    tls: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_TLS, one_of("none", "starttls", "tls"), default="none")
    timeout: int = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_TIMEOUT, integer(1), default=10_000)
    max_per_hour: int = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_MAX_PER_HOUR, integer(1), default=20)
    subject_prefix: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_SUBJECT_PREFIX, text, default="[slow]")
    link: str = setting(env.OTEL_PYTHON_INTROSPECT_EMAIL_LINK, trace_link, default="")

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> EmailConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults."""
        return read(cls, environ, overrides)


class ReportsConfig(Settings):
    """Where ``introspect_files`` keeps its reports.

    Args:
        directory: A directory; empty for no reports.
        max_count: How many are kept; the oldest go.
        max_bytes: How many bytes they may have together.

    Raises:
        ConfigurationError: If a value is not one that the setting can have.
    """

    directory: str = setting(env.OTEL_PYTHON_INTROSPECT_REPORTS_DIR, text, default="")
    max_count: int = setting(env.OTEL_PYTHON_INTROSPECT_REPORTS_MAX_COUNT, integer(1), default=1000)
    max_bytes: int = setting(env.OTEL_PYTHON_INTROSPECT_REPORTS_MAX_BYTES, integer(1), default=64 * 1024 * 1024)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> ReportsConfig:
        """Read the settings; *overrides* by field name come first, then *environ*, then the defaults."""
        return read(cls, environ, overrides)


def option_of(variable: str) -> str:
    """The name of *variable* as a keyword argument of the instrumentor and as a key of the configuration file.

    >>> option_of("OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD")
    'watchdog_threshold'
    """
    return variable.removeprefix(PREFIX).lower()


class IntrospectConfig(NamedTuple):
    """All settings, by what they are for."""

    evidence: EvidenceConfig = EvidenceConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    profiler: ProfilerConfig = ProfilerConfig()
    timeout: TimeoutConfig = TimeoutConfig()
    recorder: RecorderConfig = RecorderConfig()

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, options: Mapping[str, object] | None = None
    ) -> IntrospectConfig:
        """Read the settings; *options* (by ``option_of`` names) come first, then *environ*, then the defaults.

        >>> IntrospectConfig.from_env({}, {"watchdog_threshold": 250}).watchdog.threshold
        250
        """
        given = {
            config: {name: (options or {}).get(option_of(variable)) for name, variable in variables_of(config).items()}
            for config in INTROSPECT_SETTINGS
        }
        return cls(
            evidence=EvidenceConfig.from_env(environ, given[EvidenceConfig]),
            watchdog=WatchdogConfig.from_env(environ, given[WatchdogConfig]),
            profiler=ProfilerConfig.from_env(environ, given[ProfilerConfig]),
            timeout=TimeoutConfig.from_env(environ, given[TimeoutConfig]),
            recorder=RecorderConfig.from_env(environ, given[RecorderConfig]),
        )


INTROSPECT_SETTINGS: Final[tuple[type[Any], ...]] = (
    EvidenceConfig,
    WatchdogConfig,
    ProfilerConfig,
    TimeoutConfig,
    RecorderConfig,
)
"""Those of ``introspect``."""
SETTINGS: Final[tuple[type[Any], ...]] = (*INTROSPECT_SETTINGS, EmailConfig, ReportsConfig)
"""All of them: the exporters have settings of their own, which ``introspect`` is not asked for."""


@cache
def introspect_options() -> type[Any]:
    """Every setting as one optional key of a dataclass: what a configuration file may say about ``introspect``.

    Made when it is asked for: only a configuration file asks.
    """
    options = [
        (option_of(variable), Any, None) for config in INTROSPECT_SETTINGS for variable in variables_of(config).values()
    ]
    return make_dataclass("IntrospectOptions", options, frozen=True, kw_only=True)
