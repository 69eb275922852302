"""Names of our own span attributes and events; everybody else's come from ``opentelemetry.semconv``.

The contract is: name and type of each of these never change within a major version.
"""

from __future__ import annotations

from typing import Final

# On the span.
SLOW: Final = "otel_introspect.slow"
"""bool, true: the span stayed open past the threshold."""
SNAPSHOTS: Final = "otel_introspect.snapshots"
"""int: how many snapshots the span carries."""

# On the span of a request whose process has died.
RECOVERED: Final = "otel_introspect.recovered"
"""bool, true: the process died while the request was running, and another has sent this span, or this log record."""

# On a finished child span that carries a snapshot out of the process while its parent still runs.
CHECKPOINT: Final = "otel_introspect.checkpoint"
"""bool, true: this span is a checkpoint; what it says is said on its parent too, once that has ended."""

# The event with one stack.
STACK_SNAPSHOT_EVENT: Final = "otel_introspect.stack_snapshot"
ELAPSED_MS: Final = "otel_introspect.elapsed_ms"
"""int: how long the span had been open."""
THRESHOLD_MS: Final = "otel_introspect.threshold_ms"
"""int: the threshold in force."""
SNAPSHOT_INDEX: Final = "otel_introspect.snapshot.index"
"""int: 0 for the first snapshot of a span."""
OBSERVER: Final = "otel_introspect.observer"
"""string: who took it, ``thread``, ``signal`` or ``faulthandler``."""
LATENESS_MS: Final = "otel_introspect.lateness_ms"
"""int: how long after it was due it was taken."""
TASK_STATE: Final = "otel_introspect.task.state"
"""string: ``running``, ``awaiting`` or ``switched_out``; only where tasks or greenlets run."""
REPEATED: Final = "otel_introspect.repeated"
"""int: how many snapshots in a row, this one included, showed the identical stack."""
STACK_FRAMES: Final = "otel_introspect.stack.frames"
"""string[]: the whole stack, innermost frame first; only where ``code.stacktrace`` had to be cut."""
STACK_LOCALS: Final = "otel_introspect.stack.locals"
"""string[]: the variables of the application's frames, innermost first, one text for each frame: ``in function
(file:line)``, then a line for each variable; only where they were asked for."""

# The event with the other threads.
THREADS_EVENT: Final = "otel_introspect.threads"
THREADS_TEXT: Final = "otel_introspect.threads.text"
"""string: their stacks, identical ones grouped."""
THREADS_COUNT: Final = "otel_introspect.threads.count"
"""int: how many threads they were."""

# On the span of work that outlived a limit.
INTERRUPTED: Final = "otel_introspect.interrupted"
"""bool, true: the work was interrupted."""
TIMEOUT_EVENT: Final = "otel_introspect.timeout"
TIMEOUT_LIMIT_MS: Final = "otel_introspect.timeout.limit_ms"
"""int: how long the work was allowed to take."""
TIMEOUT_ELAPSED_MS: Final = "otel_introspect.timeout.elapsed_ms"
"""int: how long it had taken when it was interrupted, or at its end if it was not."""
TIMEOUT_MECHANISM: Final = "otel_introspect.timeout.mechanism"
"""string: ``alarm``, ``task_cancel``, ``greenlet`` or ``async_exception``."""
TIMEOUT_ENFORCED: Final = "otel_introspect.timeout.enforced"
"""bool: whether the interruption ended the work; if not, the work took longer and went on to its end."""
TIMEOUT_ATTEMPTS: Final = "otel_introspect.timeout.attempts"
"""int: how often the exception was raised; more than 1 where the work swallowed it."""
TIMEOUT_REASON: Final = "otel_introspect.timeout.reason"
"""string: why it was not enforced; only then."""

# The event with a profile.
PROFILE_EVENT: Final = "otel_introspect.profile"
PROFILE_ID: Final = "otel_introspect.profile.id"
"""string: 32 hexadecimal digits; on the event and, for Jaeger's link patterns and Grafana's links, on the span."""
PROFILE_TEXT: Final = "otel_introspect.profile.text"
"""string: the tree of calls with the seconds spent in each, as pyinstrument prints it; if it must be shorter, the
smallest frames are hidden and a line says how many."""
PROFILE_TRIGGER: Final = "otel_introspect.profile.trigger"
"""string: why it was taken, ``slow``, ``tail``, ``request``, ``ratio`` or ``code``."""
PROFILE_ENGINE: Final = "otel_introspect.profile.engine"
"""string: what took it, ``sampler`` or ``pyinstrument``."""
PROFILE_INTERVAL_MS: Final = "otel_introspect.profile.interval_ms"
"""int: the sampling interval that it began with."""
PROFILE_SAMPLE_COUNT: Final = "otel_introspect.profile.sample_count"
"""int: how many samples it is made of."""
PROFILE_DURATION_MS: Final = "otel_introspect.profile.duration_ms"
"""int: the time that it covers."""
PROFILE_TRUNCATED: Final = "otel_introspect.profile.truncated"
"""bool: whether frames are hidden in the text, or the profile stopped before the work did."""
PROFILE_URL: Final = "otel_introspect.profile.url"
"""string: where the whole profile is; only where it is stored."""
