"""Read by the type checker, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from typing_extensions import assert_type

from otel_introspect import DeadlineExceeded, Quota, __version__, disable_timeouts, exempt, profile, snapshot, timeout
from otel_introspect.config import (
    EmailConfig,
    EvidenceConfig,
    IntrospectConfig,
    ProfilerConfig,
    RecorderConfig,
    ReportsConfig,
    TimeoutConfig,
    WatchdogConfig,
    introspect_options,
    option_of,
)
from otel_introspect.errors import ConfigurationError, IntrospectError
from otel_introspect.exemption import is_exempt
from otel_introspect.exporters.console import IntrospectConsoleExporter
from otel_introspect.exporters.mail import IntrospectEmailExporter
from otel_introspect.exporters.report_files import IntrospectFilesExporter
from otel_introspect.exporters.report_log import IntrospectLoggingExporter
from otel_introspect.faults import fail_open
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
from otel_introspect.introspection import Introspection, active
from otel_introspect.processors.event_bridge import EventToSpanEventBridge
from otel_introspect.processors.watchdog import WatchdogSpanProcessor
from otel_introspect.profiles import Profile

assert_type(__version__, str)
assert_type(snapshot(), bool)
snapshot("now")  # type: ignore[call-arg]


# A view keeps its type, whatever it is.
@exempt
def view(request: str, *, page: int = 1) -> bytes:
    return request.encode() * page


@exempt
async def async_view(request: str) -> bytes:
    return request.encode()


assert_type(view("", page=2), bytes)
assert_type(is_exempt(view), bool)
view(1)  # type: ignore[arg-type]
exempt(5)  # type: ignore[type-var]


async def awaited() -> None:
    assert_type(await async_view(""), bytes)


# Each settings class reads itself, and knows its fields.
assert_type(EvidenceConfig.from_env(), EvidenceConfig)
assert_type(EvidenceConfig.from_env({}).events, tuple[str, ...])
assert_type(EvidenceConfig.from_env({}).excluded_urls, str)
assert_type(WatchdogConfig.from_env({}, {"threshold": 5}), WatchdogConfig)
assert_type(WatchdogConfig().threshold, int)
assert_type(WatchdogConfig().observers, tuple[str, ...])
assert_type(WatchdogConfig().all_threads, bool)
assert_type(ProfilerConfig.from_env(), ProfilerConfig)
assert_type(ProfilerConfig().ratio, float)
assert_type(TimeoutConfig.from_env(), TimeoutConfig)
assert_type(TimeoutConfig().timeout, int)
assert_type(RecorderConfig.from_env().directory, str)
assert_type(EvidenceConfig().events_bridge, bool)
assert_type(WatchdogConfig().locals, bool)
assert_type(WatchdogConfig().locals_redact, str)
assert_type(EmailConfig.from_env({}, {"to": "a@b.example"}), EmailConfig)
assert_type(EmailConfig().max_per_hour, int)
assert_type(ReportsConfig.from_env({}).max_bytes, int)
assert_type(IntrospectConfig.from_env(), IntrospectConfig)
assert_type(IntrospectConfig.from_env({}, {"watchdog_threshold": 5}).watchdog, WatchdogConfig)
assert_type(introspect_options(), type[Any])
assert_type(option_of(""), str)

IntrospectConfig(watchdog=WatchdogConfig(threshold=250, observers=("thread",)), profiler=ProfilerConfig(key="k"))

WatchdogConfig(threshold="5s")  # type: ignore[arg-type]
WatchdogConfig(250)  # type: ignore[call-arg]
WatchdogConfig(treshold=250)  # type: ignore[call-arg]
WatchdogConfig().threshold = 250  # type: ignore[misc]
IntrospectConfig(watchdog=ProfilerConfig())  # type: ignore[arg-type]

# What an application may put together itself.
introspection = Introspection(IntrospectConfig(), tracer_provider=TracerProvider())
TracerProvider().add_span_processor(WatchdogSpanProcessor(introspection))
TracerProvider().add_span_processor(WatchdogSpanProcessor())
Introspection(IntrospectConfig(), logger_provider=LoggerProvider())
LoggerProvider().add_log_record_processor(EventToSpanEventBridge())
for exporter in (
    IntrospectConsoleExporter(),
    IntrospectEmailExporter(to="oncall@example.com", max_per_hour=5),
    IntrospectFilesExporter(directory="/var/lib/slow"),
    IntrospectLoggingExporter(link="https://jaeger.example/trace/{trace_id}"),
):
    TracerProvider().add_span_processor(BatchSpanProcessor(exporter))
IntrospectLoggingExporter(link=5)  # type: ignore[arg-type]
assert_type(active(), Introspection | None)
assert_type(WatchdogSpanProcessor().force_flush(), bool)
IntrospectInstrumentor().instrument(config=IntrospectConfig(), tracer_provider=TracerProvider())
assert_type(IntrospectInstrumentor().is_instrumented_by_opentelemetry, bool)

error: IntrospectError = ConfigurationError("")
also: ValueError = ConfigurationError("")


def swallowed() -> int:
    with fail_open("dividing"):
        return 1 // 0
    return 0


with timeout(1.5, RuntimeError) as limit:
    assert_type(limit, timeout)
    assert_type(limit.remaining(), float | None)
    assert_type(limit.expired, bool)
with timeout(Quota(3), DeadlineExceeded("too long")), timeout(None, lambda: KeyError("x")):
    disable_timeouts()
timeout("soon")  # type: ignore[arg-type]
timeout(1, "RuntimeError")  # type: ignore[arg-type]


@timeout(2)
def limited(number: int) -> str:
    return str(number)


assert_type(limited(1), str)
limited("one")  # type: ignore[arg-type]


@timeout(2)
async def limited_coroutine(number: int) -> str:
    async with timeout(1):
        return str(number)


with profile() as taken, profile(name="nightly", interval_ms=5):
    assert_type(taken, Profile)
    assert_type(taken.id, str | None)
    assert_type(taken.text(), str)
    reason: str | None = taken.refused
profile("nightly")  # type: ignore[call-overload]
profile(5)  # type: ignore[call-overload]
profile(interval_ms="5")  # type: ignore[call-overload]


# What is decorated keeps its type, whatever it is.
@profile
def profiled(number: int, *, word: str = "") -> str:
    return word * number


@profile(interval_ms=5)
async def profiled_coroutine(number: int) -> str:
    with profile():
        return str(number)


@profile(name="items")
def profiled_generator(number: int) -> Generator[int, str, bytes]:
    word = yield number
    return word.encode()


@profile()
async def profiled_async_generator(number: int) -> AsyncGenerator[int, None]:
    yield number


class Job:
    @profile
    def run(self, number: int) -> str:
        return str(number)

    @classmethod
    @profile
    def made(cls, number: int) -> Job:
        return cls()


assert_type(profiled(1, word="a"), str)
profiled("one")  # type: ignore[arg-type]
assert_type(profiled_generator(1), Generator[int, str, bytes])
assert_type(profiled_async_generator(1), AsyncGenerator[int, None])
assert_type(Job.made(1).run(2), str)
Job().run("one")  # type: ignore[arg-type]


async def profiled_awaited() -> None:
    assert_type(await profiled_coroutine(1), str)
