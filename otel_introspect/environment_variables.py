"""The environment variables, one documented constant each.

``opentelemetry-instrument`` makes a flag of every name here that starts with ``OTEL_``: the prefix ``OTEL_PYTHON_``
goes, the rest is lower-cased (``--introspect_watchdog_threshold 500``). So this module imports nothing: a name that it
borrowed from another package would become a second flag of the same name, and the launcher would refuse to start.

The rules of the OpenTelemetry specification hold: durations are integers in milliseconds, an empty value is an unset
one, a boolean is true only for ``true``, and a value that is not understood is warned about once and ignored.
"""

OTEL_PYTHON_INTROSPECT_EVENTS = "OTEL_PYTHON_INTROSPECT_EVENTS"
"""Where evidence goes: ``span``, ``log`` or ``span,log``. Default: ``span``."""

OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE = "OTEL_PYTHON_INTROSPECT_EVENTS_BRIDGE"
"""``true``: events that are emitted as log records, ours and others', are added to their span as span events, too.
Default: false."""

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
"""Who may take snapshots: any of ``thread``, ``signal``, ``faulthandler``. A list without ``thread`` watches nothing.
Default: ``thread,signal``, from Python 3.13.10 on (not 3.14.0) ``thread,signal,faulthandler``."""

OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS = "OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS"
"""``true``: a slow span also gets one event with the stacks of the other threads, identical ones grouped,
to see who holds a lock. Default: false."""

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
"""The profiler's sampling interval in milliseconds; 1 at least. What is asked for explicitly is sampled ten times as
often. Default: 10."""

OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE = "OTEL_PYTHON_INTROSPECT_PROFILER_ENGINE"
"""``sampler`` (our own) or ``pyinstrument`` (its own hook at each call). The latter serves requests that ask for it
themselves, and code: what else is profiled may end on another thread, and is sampled. Default: ``sampler``."""

OTEL_PYTHON_INTROSPECT_PROFILER_KEY = "OTEL_PYTHON_INTROSPECT_PROFILER_KEY"
"""The secret that signs requests for a profile. Unset: every remote one is refused."""

OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW = "OTEL_PYTHON_INTROSPECT_PROFILER_ALLOW"
"""Dotted path of a callable(request) -> bool that may admit an unsigned request for a profile. Default: unset."""

OTEL_PYTHON_INTROSPECT_PROFILER_RATIO = "OTEL_PYTHON_INTROSPECT_PROFILER_RATIO"
"""Share of traces that are profiled under the trigger ``ratio``, from 0 to 1; the same ones in every service. Default:
0."""

OTEL_PYTHON_INTROSPECT_PROFILER_STORE = "OTEL_PYTHON_INTROSPECT_PROFILER_STORE"
"""A directory or fsspec URL for whole profiles; their text goes on the span in any case. Default: unset."""

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

OTEL_PYTHON_INTROSPECT_EMAIL_TO = "OTEL_PYTHON_INTROSPECT_EMAIL_TO"
"""Who gets the mails of ``introspect_email``: comma-separated addresses. Unset: no mail is sent."""

OTEL_PYTHON_INTROSPECT_EMAIL_FROM = "OTEL_PYTHON_INTROSPECT_EMAIL_FROM"
"""Who they are from. Default: Django's ``DEFAULT_FROM_EMAIL`` where Django sends them, otherwise ``otel-introspect@``
and this machine's name."""

OTEL_PYTHON_INTROSPECT_EMAIL_HOST = "OTEL_PYTHON_INTROSPECT_EMAIL_HOST"
"""The SMTP server. Default: what Django's settings say where Django is used, otherwise ``localhost``."""

OTEL_PYTHON_INTROSPECT_EMAIL_PORT = "OTEL_PYTHON_INTROSPECT_EMAIL_PORT"
"""Its port; 0 is the usual one: 25, with ``starttls`` 587, with ``tls`` 465. Default: 0."""

OTEL_PYTHON_INTROSPECT_EMAIL_USER = "OTEL_PYTHON_INTROSPECT_EMAIL_USER"
"""Who logs in there. Unset: nobody does."""

OTEL_PYTHON_INTROSPECT_EMAIL_PASSWORD = "OTEL_PYTHON_INTROSPECT_EMAIL_PASSWORD"  # noqa: S105 - its name
"""With which password; never shown. Default: empty."""

OTEL_PYTHON_INTROSPECT_EMAIL_TLS = "OTEL_PYTHON_INTROSPECT_EMAIL_TLS"
"""``none``, ``starttls`` or ``tls``. Default: ``none``."""

OTEL_PYTHON_INTROSPECT_EMAIL_TIMEOUT = "OTEL_PYTHON_INTROSPECT_EMAIL_TIMEOUT"
"""How long, in milliseconds, the server may keep a mail waiting at each step; 1 at least. Default: 10000."""

OTEL_PYTHON_INTROSPECT_EMAIL_MAX_PER_HOUR = "OTEL_PYTHON_INTROSPECT_EMAIL_MAX_PER_HOUR"
"""How many mails one process sends in any hour; slow requests beyond that are counted, and told in a later one. 1 at
least. Default: 20."""

OTEL_PYTHON_INTROSPECT_EMAIL_SUBJECT_PREFIX = "OTEL_PYTHON_INTROSPECT_EMAIL_SUBJECT_PREFIX"
"""What each subject begins with. Default: ``[slow]``."""

OTEL_PYTHON_INTROSPECT_EMAIL_LINK = "OTEL_PYTHON_INTROSPECT_EMAIL_LINK"
"""Where a trace can be looked at, such as ``http://localhost:16686/trace/{trace_id}``; ``{span_id}`` may be in it, too.
Used in mails, log records and report files. Unset: there is no link."""

OTEL_PYTHON_INTROSPECT_REPORTS_DIR = "OTEL_PYTHON_INTROSPECT_REPORTS_DIR"
"""The directory of ``introspect_files``. Unset: no file is written."""

OTEL_PYTHON_INTROSPECT_REPORTS_MAX_COUNT = "OTEL_PYTHON_INTROSPECT_REPORTS_MAX_COUNT"
"""How many reports are kept there; the oldest go. Default: 1000."""

OTEL_PYTHON_INTROSPECT_REPORTS_MAX_BYTES = "OTEL_PYTHON_INTROSPECT_REPORTS_MAX_BYTES"
"""How many bytes they may have together. Default: 67108864 (64 MiB)."""
