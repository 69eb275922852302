"""The environment variables, one documented constant each.

``opentelemetry-instrument`` makes a flag of every name here that starts with ``OTEL_``: the prefix ``OTEL_PYTHON_``
goes, the rest is lower-cased (``--introspect_watchdog_threshold 500``). So this module imports nothing: a name that it
borrowed from another package would become a second flag of the same name, and the launcher would refuse to start.

The rules of the OpenTelemetry specification hold: durations are integers in milliseconds, an empty value is an unset
one, a boolean is true only for ``true``, and a value that is not understood is warned about once and ignored.
"""

OTEL_PYTHON_INTROSPECT_EVENTS = "OTEL_PYTHON_INTROSPECT_EVENTS"
"""Where evidence goes: ``span``, ``log`` or ``span,log``. Default: ``span``."""

OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS = "OTEL_PYTHON_INTROSPECT_EXCLUDED_URLS"
"""Comma-separated regular expressions; a request whose URL matches one is not watched. Default: what
``OTEL_PYTHON_EXCLUDED_URLS`` says."""

OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES = "OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES"
"""No string that we attach is longer than this, in UTF-8 bytes; 64 at least. Default: 2000 (Tempo keeps the first
2048)."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD = "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD"
"""How long, in milliseconds, an entry span may stay open before it counts as slow; 0 turns the watchdog off. Default:
1000."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_MAX_SNAPSHOTS = "OTEL_PYTHON_INTROSPECT_WATCHDOG_MAX_SNAPSHOTS"
"""Snapshots for each span, taken at 1, 2, 4, 8, 16, ... times the threshold; 1 to 32. Default: 5."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS = "OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS"
"""Who may take snapshots: any of ``thread``, ``signal``, ``faulthandler``. Default: ``thread,signal``, from
Python 3.13.10 on ``thread,signal,faulthandler``."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS = "OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS"
"""``true``: a slow span also gets one event with the stacks of the other threads, identical ones grouped. Default:
false."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS = "OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS"
"""``true``: local variables of the application's frames, redacted and bounded. Default: false."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS_REDACT = "OTEL_PYTHON_INTROSPECT_WATCHDOG_LOCALS_REDACT"
"""Comma-separated words beside the built-in ones; what has one of them in its name is not shown among local variables.
Default: unset."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_CHECKPOINT = "OTEL_PYTHON_INTROSPECT_WATCHDOG_CHECKPOINT"
"""Which snapshots leave the process at once, on a finished child span: ``first``, ``all`` or ``none``. Default:
``first``."""

OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS = "OTEL_PYTHON_INTROSPECT_PROFILER_TRIGGERS"
"""What makes a request be profiled: any of ``slow``, ``request``, ``ratio``, ``tail``, or ``none``. Default:
``slow,request``."""

OTEL_PYTHON_INTROSPECT_PROFILER_INTERVAL = "OTEL_PYTHON_INTROSPECT_PROFILER_INTERVAL"
"""The profiler's sampling interval in milliseconds; 1 at least. Default: 10."""

OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE = "OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE"
"""``sampler`` (our own) or ``pyinstrument`` (its per-call hook). Default: ``sampler``."""

OTEL_PYTHON_INTROSPECT_PROFILER_KEY = "OTEL_PYTHON_INTROSPECT_PROFILER_KEY"
"""The secret that signs requests for a profile. Unset: every remote one is refused."""

OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW = "OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW"
"""Dotted path of a callable(request) -> bool that may admit an unsigned request for a profile. Default: unset."""

OTEL_PYTHON_INTROSPECT_PROFILER_RATIO = "OTEL_PYTHON_INTROSPECT_PROFILER_RATIO"
"""Share of entry spans that are profiled under the trigger ``ratio``, from 0 to 1. Default: 0."""

OTEL_PYTHON_INTROSPECT_PROFILER_STORE = "OTEL_PYTHON_INTROSPECT_PROFILER_STORE"
"""A directory or fsspec URL for full profiles. Default: unset."""

OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_COUNT = "OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_COUNT"
"""How many profiles are kept in the store; the oldest go. Default: 1000."""

OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_BYTES = "OTEL_PYTHON_INTROSPECT_PROFILER_STORE_MAX_BYTES"
"""How many bytes the profiles in the store may have together. Default: 268435456 (256 MiB)."""

OTEL_PYTHON_INTROSPECT_PROFILER_MAX_DURATION = "OTEL_PYTHON_INTROSPECT_PROFILER_MAX_DURATION"
"""How long one profile may run, in milliseconds; 1 at least. Default: 30000."""

OTEL_PYTHON_INTROSPECT_TIMEOUT = "OTEL_PYTHON_INTROSPECT_TIMEOUT"
"""How long a request may take, in milliseconds, before it is interrupted; 0 is no limit. Default: 0."""

OTEL_PYTHON_INTROSPECT_TIMEOUT_VIEW = "OTEL_PYTHON_INTROSPECT_TIMEOUT_VIEW"
"""What answers an interrupted request: the dotted path of a callable(request), or a template's name. Default: unset, a
plain 503."""

OTEL_PYTHON_INTROSPECT_TIMEOUT_MAX_DEFERRAL = "OTEL_PYTHON_INTROSPECT_TIMEOUT_MAX_DEFERRAL"
"""How long, in milliseconds, an interruption may wait for a safe place. Default: 1000."""

OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED = "OTEL_PYTHON_INTROSPECT_TIMEOUTS_DISABLED"
"""``true``: no timeout of any kind interrupts. Default: false."""

OTEL_PYTHON_INTROSPECT_RECORDER_DIR = "OTEL_PYTHON_INTROSPECT_RECORDER_DIR"
"""Where the flight recorder keeps its files; ``none`` turns it off. Default: a private directory under the system's
temporary one."""
