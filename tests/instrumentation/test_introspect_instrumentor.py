"""The instrumentor: where its settings come from, which provider it serves, what it says."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import sys
import threading
import types

import pytest
from log_records import Logs
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_introspect import faults, introspection
from otel_introspect.config import PREFIX, IntrospectConfig, WatchdogConfig
from otel_introspect.engine.introspector import INTROSPECTOR_NAME
from otel_introspect.instrumentation import introspect
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
from otel_introspect.introspection import activate, active
from otel_introspect.processors.watchdog import WatchdogSpanProcessor


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    """The tests' own environment says nothing, and threads are threads."""
    for variable in list(os.environ):
        if variable.startswith(PREFIX) or variable == "OTEL_PYTHON_EXCLUDED_URLS":
            monkeypatch.delenv(variable)
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)


@pytest.fixture(name="instrumentor")
def _instrumentor():
    """A fresh one, as its base class makes one for the whole process."""
    IntrospectInstrumentor._instance = None
    instrumentor = IntrospectInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    IntrospectInstrumentor._instance = None


@pytest.fixture(name="provider")
def _provider():
    provider = TracerProvider()
    yield provider
    provider.shutdown()


def processors(provider) -> list[WatchdogSpanProcessor]:
    every = provider._active_span_processor._span_processors
    return [each for each in every if isinstance(each, WatchdogSpanProcessor)]


def watches(provider) -> bool:
    """Whether an entry span of this provider is put into the live table."""
    current = active()
    if current is None:
        return False
    current.introspector.parked = False  # no thread for this
    with provider.get_tracer(__name__).start_as_current_span("GET /"):
        return bool(current.table)


def said(caplog, level: str = "WARNING") -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("otel_introspect") and record.levelname == level
    ]


def test_it_has_entry_spans_watched(instrumentor, provider, caplog):
    """
    ``instrument`` adds one processor to the given provider and starts no thread.
    """
    instrumentor.instrument(tracer_provider=provider)

    assert len(processors(provider)) == 1
    assert active().tracer_provider is provider
    assert active().config == IntrospectConfig()
    assert watches(provider)
    assert said(caplog) == []
    assert [thread for thread in threading.enumerate() if thread.name == INTROSPECTOR_NAME] == []


def test_the_global_provider(instrumentor, provider, monkeypatch):
    """
    Without a provider given the global one is used.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    instrumentor.instrument()

    assert len(processors(provider)) == 1
    assert watches(provider)


def test_it_depends_on_nothing(instrumentor):
    """
    No package has to be there for it.
    """
    assert list(instrumentor.instrumentation_dependencies()) == []


def test_settings_from_keywords(instrumentor, provider, monkeypatch, caplog):
    """
    A setting by its name comes before the environment.
    """
    monkeypatch.setenv(PREFIX + "WATCHDOG_THRESHOLD", "700")
    monkeypatch.setenv(PREFIX + "WATCHDOG_MAX_SNAPSHOTS", "7")
    instrumentor.instrument(tracer_provider=provider, watchdog_threshold=250, events=["span"])

    assert active().config.watchdog == WatchdogConfig(threshold=250, max_snapshots=7)
    assert said(caplog) == []


def test_settings_from_the_environment(instrumentor, provider, monkeypatch):
    """
    What is not given comes from the environment.
    """
    monkeypatch.setenv(PREFIX + "WATCHDOG_ALL_THREADS", "true")
    instrumentor.instrument(tracer_provider=provider)

    assert active().config.watchdog.all_threads is True


def test_settings_as_a_whole(instrumentor, provider, monkeypatch):
    """
    A config in code is taken as it is; the environment has no say then.
    """
    monkeypatch.setenv(PREFIX + "WATCHDOG_THRESHOLD", "700")
    config = IntrospectConfig(watchdog=WatchdogConfig(max_snapshots=2))
    instrumentor.instrument(tracer_provider=provider, config=config)

    assert active().config is config


def test_settings_from_a_configuration_file(instrumentor, provider, caplog):
    """
    A configuration file's options come as keywords, those that it leaves out as None.
    """
    options = IntrospectInstrumentor.configuration(watchdog_threshold=300)
    instrumentor.instrument(tracer_provider=provider, **dataclasses.asdict(options))

    assert active().config.watchdog.threshold == 300
    assert said(caplog) == []


def test_a_bad_setting(instrumentor, provider, monkeypatch, caplog):
    """
    Bad values, wherever they come from, cost a warning each; everything is watched with the defaults.
    """
    monkeypatch.setenv(PREFIX + "WATCHDOG_MAX_SNAPSHOTS", "many")
    instrumentor.instrument(tracer_provider=provider, watchdog_threshold="1s")

    assert active().config == IntrospectConfig()
    assert watches(provider)
    assert len(said(caplog)) == 2


def test_a_mistyped_setting(instrumentor, provider, caplog):
    """
    A keyword that there is not is ignored, with a warning that names the nearest.
    """
    instrumentor.instrument(tracer_provider=provider, watchdog_treshold=250)

    (message,) = said(caplog)
    assert "knows no setting 'watchdog_treshold'" in message
    assert message.endswith("Did you mean watchdog_threshold?")
    assert watches(provider)


def test_a_setting_like_no_other(instrumentor, provider, caplog):
    """
    Where there is nothing near, the warning lists what there is.
    """
    instrumentor.instrument(tracer_provider=provider, zzz=1)

    (message,) = said(caplog)
    assert "There are: events, events_bridge, excluded_urls, max_attribute_bytes, " in message


def test_what_opentelemetry_itself_passes(instrumentor, provider, caplog):
    """
    Other providers, which OpenTelemetry may hand to every instrumentor, are no unknown settings.
    """
    instrumentor.instrument(tracer_provider=provider, meter_provider=None, logger_provider=object())

    assert said(caplog) == []


def test_log_records_that_nobody_takes(instrumentor, provider, monkeypatch, caplog):
    """
    Who asks for log records where no provider takes them is told once what to do, and that evidence goes on the span.
    """
    monkeypatch.setenv(PREFIX + "EVENTS", "log")
    instrumentor.instrument(tracer_provider=provider)

    (message,) = said(caplog)
    assert "OTEL_LOGS_EXPORTER=otlp" in message
    assert "evidence goes on the span" in message


def test_log_records_that_somebody_takes(instrumentor, provider, caplog):
    """
    With a provider that has a processor there is nothing to say.
    """
    instrumentor.instrument(tracer_provider=provider, logger_provider=Logs().provider, events=["log"])

    assert said(caplog) == []


def test_the_bridge_is_put_in_and_switched_off(instrumentor, provider, caplog):
    """
    EVENTS_BRIDGE adds one bridge to the logger provider, however often it is switched on, which rests when it is off.
    """
    logger_provider = Logs().provider
    for _ in range(2):
        instrumentor.instrument(tracer_provider=provider, logger_provider=logger_provider, events_bridge=True)
        _, bridge = logger_provider._multi_log_record_processor._log_record_processors
        assert bridge.is_on
        instrumentor.uninstrument()
        assert not bridge.is_on

    assert said(caplog) == []


def test_a_bridge_that_has_no_place(instrumentor, provider, caplog):
    """
    Without a logger provider of the SDK's the user is told what to do.
    """
    instrumentor.instrument(tracer_provider=provider, events_bridge=True)

    (message,) = said(caplog)
    assert message.startswith(f"{PREFIX}EVENTS_BRIDGE=true, but there is no logger provider")


def test_observers_that_are_left_out(instrumentor, provider, monkeypatch, caplog):
    """
    An observer that this process can't have is mentioned at debug level only.
    """
    caplog.set_level("DEBUG", "otel_introspect")
    monkeypatch.setattr(introspection, "is_supported", lambda: False)
    monkeypatch.setenv(PREFIX + "WATCHDOG_OBSERVERS", "thread,faulthandler")
    instrumentor.instrument(tracer_provider=provider)

    assert said(caplog) == []
    assert said(caplog, "DEBUG") == ["The observer faulthandler is left out: it is not to be had on this build."]


def test_faulthandler_s_functions_are_given_back(instrumentor, provider, monkeypatch):
    """
    Who sets faulthandler's timer is noticed as long as we are switched on, and no longer.
    """
    before = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later
    monkeypatch.setenv(PREFIX + "WATCHDOG_OBSERVERS", "thread,faulthandler")
    instrumentor.instrument(tracer_provider=provider)
    meanwhile = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later
    instrumentor.uninstrument()

    assert meanwhile[0] is not before[0]
    assert meanwhile[1] is not before[1]
    assert (faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later) == before


def test_no_provider_of_the_sdk(instrumentor, provider, monkeypatch, caplog):
    """
    Without one the user is told once; one that comes later is found at the next use, and then no more looked for.
    """
    asked = []
    current = trace.NoOpTracerProvider()

    def get_tracer_provider():
        asked.append(current)
        return current

    monkeypatch.setattr(trace, "get_tracer_provider", get_tracer_provider)
    instrumentor.instrument()
    assert len(said(caplog)) == 1
    assert "found no tracer provider" in said(caplog)[0]
    assert active() is active()
    assert len(asked) == 3

    current = provider
    assert watches(provider)
    assert len(processors(provider)) == 1
    active()
    assert len(asked) == 4
    assert len(said(caplog)) == 1


def test_off_before_a_provider_came(instrumentor, provider, monkeypatch):
    """
    Switched off while it still waits for a provider, it watches none that comes afterwards.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    instrumentor.instrument()
    instrumentor.uninstrument()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    assert active() is None
    assert processors(provider) == []


def test_on_and_off_and_on(instrumentor, provider):
    """
    A provider gets one processor for good, which serves each time with the settings of that time.
    """
    instrumentor.instrument(tracer_provider=provider, watchdog_threshold=100)
    first = active()
    (processor,) = processors(provider)
    instrumentor.uninstrument()
    assert active() is None
    assert not first.watching
    with provider.get_tracer(__name__).start_as_current_span("GET /"):
        assert not first.table

    instrumentor.instrument(tracer_provider=provider, watchdog_threshold=200)

    assert processors(provider) == [processor]
    assert processor.introspection is active()
    assert active().config.watchdog.threshold == 200
    assert watches(provider)
    assert not first.table


def test_another_provider(instrumentor, provider):
    """
    Each provider has a processor of its own; the one before goes on unwatched.
    """
    other = TracerProvider()
    instrumentor.instrument(tracer_provider=provider)
    instrumentor.uninstrument()
    instrumentor.instrument(tracer_provider=other)

    assert processors(provider) != processors(other)
    assert watches(other)
    assert not watches(provider)
    other.shutdown()


def test_instrument_twice(instrumentor, provider):
    """
    A second ``instrument`` without an ``uninstrument`` is OpenTelemetry's to refuse, and changes nothing.
    """
    instrumentor.instrument(tracer_provider=provider)
    before = active()
    instrumentor.instrument(tracer_provider=provider, watchdog_threshold=1)

    assert active() is before
    assert len(processors(provider)) == 1


def test_uninstrument_gives_back_the_thread(instrumentor, provider):
    """
    After ``uninstrument`` there is no thread, though a span is still open.
    """
    instrumentor.instrument(tracer_provider=provider)
    span = provider.get_tracer(__name__).start_span("GET /")
    assert INTROSPECTOR_NAME in [thread.name for thread in threading.enumerate()]

    instrumentor.uninstrument()
    assert INTROSPECTOR_NAME not in [thread.name for thread in threading.enumerate()]
    span.end()
    assert not faults.counts


@pytest.mark.parametrize("given", [{"watchdog_threshold": 0}, {"watchdog_observers": "signal"}])
def test_nothing_to_watch(instrumentor, provider, caplog, given):
    """
    With the watchdog off the provider is left as it is, and ``snapshot()`` still has its settings.
    """
    instrumentor.instrument(tracer_provider=provider, recorder_dir="none", **given)

    assert processors(provider) == []
    assert active() is not None
    assert said(caplog) == []


def broken(*_args, **_kwargs):
    raise RuntimeError


@pytest.mark.parametrize(
    "part",
    [
        "IntrospectConfig.from_env",
        "Introspection",
        "WatchdogSpanProcessor",
        "activate",
        "on_first_use",
        "variables_of",
        "tell_once",
        "trace.get_tracer_provider",
        "difflib.get_close_matches",
    ],
)
def test_setting_up_never_raises(instrumentor, monkeypatch, part):
    """
    Whichever part of ours raises, the instrumentors after us get their turn, and so do we another time.
    """
    monkeypatch.setenv(PREFIX + "RECORDER_DIR", "none")
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    with monkeypatch.context() as patch:
        patch.setattr(f"{introspect.__name__}.{part}", broken)
        if part == "WatchdogSpanProcessor":
            patch.setattr(trace, "get_tracer_provider", TracerProvider)
        instrumentor.instrument(watchdog_treshold=5)
        assert faults.counts == {("failed", "setting up"): 1}
    instrumentor.uninstrument()

    provider = TracerProvider()
    instrumentor.instrument(tracer_provider=provider)
    assert watches(provider)


@pytest.mark.parametrize("part", ["active", "activate"])
def test_switching_off_never_raises(instrumentor, provider, monkeypatch, part):
    """
    Nor does switching off.
    """
    instrumentor.instrument(tracer_provider=provider)
    with monkeypatch.context() as patch:
        patch.setattr(introspect, part, broken)
        instrumentor.uninstrument()

    assert faults.counts == {("failed", "switching off"): 1}


def test_a_provider_that_raises(instrumentor):
    """
    A provider that takes no processor is a fault that is counted; if it takes one later, that one is watched.
    """
    provider = TracerProvider()
    add, provider.add_span_processor = provider.add_span_processor, broken
    instrumentor.instrument(tracer_provider=provider)
    assert faults.counts == {("failed", "setting up"): 1}
    instrumentor.uninstrument()

    provider.add_span_processor = add
    instrumentor.instrument(tracer_provider=provider)
    assert watches(provider)


@pytest.mark.parametrize("provider", [object(), types.SimpleNamespace(add_span_processor=broken), 5, "provider"])
def test_something_that_is_no_provider(instrumentor, provider):
    """
    Whatever is given as the provider, nothing is raised, now or at the first use.
    """
    instrumentor.instrument(tracer_provider=provider)

    active()


def test_the_later_provider_raises(instrumentor, monkeypatch, caplog):
    """
    A fault while looking for a provider does not reach the request that does the looking.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    instrumentor.instrument()
    monkeypatch.setattr(trace, "get_tracer_provider", broken)

    assert active() is introspection._active
    assert faults.counts == {("failed", "looking for the tracer provider"): 1}
    activate(None)
    assert len(said(caplog, "ERROR")) == 1
