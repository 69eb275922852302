"""Settings from everywhere, good and bad, and telemetry that is switched off."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from services import PROJECT, environment

from otel_introspect import environment_variables
from otel_introspect.config import INTROSPECT_SETTINGS, SETTINGS
from otel_introspect.setting import variables_of

pytestmark = pytest.mark.realtime

PREFIX = "OTEL_PYTHON_INTROSPECT_"
BAD = {
    "EVENTS": "carrier-pigeon",
    "EXCLUDED_URLS": "(unbalanced",
    "MAX_ATTRIBUTE_BYTES": "2k",
    "WATCHDOG_THRESHOLD": "one second",
    "WATCHDOG_MAX_SNAPSHOTS": "-1",
    "WATCHDOG_OBSERVERS": "neighbour",
    "WATCHDOG_ALL_THREADS": "yes",
    "WATCHDOG_LOCALS": "1",
    "WATCHDOG_LOCALS_REDACT": "*",
    "WATCHDOG_CHECKPOINT": "sometimes",
    "EVENTS_BRIDGE": "perhaps",
    "PROFILER_TRIGGERS": "gun",
    "PROFILER_INTERVAL": "0",
    "PROFILER_ENGINE": "steam",
    "PROFILER_ALLOW": "not a path!",
    "PROFILER_RATIO": "1.5",
    "PROFILER_MAX_DURATION": "9" * 5000,
    "PROFILER_STORE_MAX_COUNT": "0",
    "PROFILER_STORE_MAX_BYTES": "a lot",
    "TIMEOUT": "1e3",
    "TIMEOUT_VIEW": "also not",
    "TIMEOUT_MAX_DEFERRAL": "\N{ARABIC-INDIC DIGIT ONE}",
    "TIMEOUTS_DISABLED": "maybe",
}
# Any text will do for these.
FREE = {"PROFILER_KEY", "PROFILER_STORE", "RECORDER_DIR"}

# One request after another in one process, through Django's own handlers, without a server.
SITE = """
import json, logging, os, sys, threading, time
import django
django.setup()
from django.test import Client
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = trace.get_tracer_provider()
getattr(provider, "add_span_processor", lambda _: None)(SimpleSpanProcessor(exporter))
client = Client()
def ask(path):
    exporter.clear()
    status = client.get(path).status_code
    spans = exporter.get_finished_spans()
    entry = next((each for each in spans if each.parent is None), None)
    return status, entry
"""


def run(code, *, flags=(), timeout=60, launcher=True, **environ):
    command = [*(["opentelemetry-instrument", *flags] if launcher else []), sys.executable, "-c", code]
    # Without profiles, which have tests of their own, all that is on a slow span are snapshots.
    given = environment(**{"OTEL_TRACES_EXPORTER": "none", f"{PREFIX}PROFILER_TRIGGERS": "none", **environ})
    return subprocess.run(
        command,
        env=given,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


SLOW = """
status, entry = ask("/slow?seconds=%s")
print(json.dumps([status, [[e.name, dict(e.attributes)] for e in entry.events] if entry else None,
    [t.name for t in threading.enumerate()]]))
"""


def slow(seconds=0.5):
    return SITE + SLOW % seconds


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ours(text):
    return [line for line in text.splitlines() if re.search("introspect", line, re.IGNORECASE)]


def test_every_variable_has_a_bad_value_here():
    """
    No variable of the package is left out of the tests below.
    """
    names = {name.removeprefix(PREFIX) for name in vars(environment_variables) if name.startswith(PREFIX)}

    # Read by an exporter that was chosen, and by nobody else: tests/exporters has bad values for these.
    of_exporters = {
        variable.removeprefix(PREFIX)
        for config in SETTINGS
        if config not in INTROSPECT_SETTINGS
        for variable in variables_of(config).values()
    }
    assert names == BAD.keys() | FREE | of_exporters


def warnings_about(text, name):
    option = name.lower()
    return [line for line in text.splitlines() if re.search(rf"\b({PREFIX}{name}|{option})\b=", line)]


def test_all_values_bad_at_once():
    """
    With a bad value in every variable each is warned about once, the defaults hold, and requests are answered.
    """
    done = run(slow(1.3), **{PREFIX + name: value for name, value in BAD.items()})

    status, events, _ = result(done)
    assert status == 200
    snapshots = [each for event, each in events if event == "otel_introspect.stack_snapshot"]
    assert [each["otel_introspect.threshold_ms"] for each in snapshots] == [1000]
    assert {name: len(warnings_about(done.stderr, name)) for name in BAD} == dict.fromkeys(BAD, 1)
    assert "Traceback" not in done.stderr
    assert all(len(line) < 400 for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", sorted(BAD))
def test_each_bad_value_alone(name):
    """
    One bad value is one warning, and the others are read.
    """
    done = run(slow(0), **{PREFIX + name: BAD[name]})

    status, events, _ = result(done)
    assert (status, events) == (200, [])
    assert len(ours(done.stderr)) == 1, done.stderr
    assert len(warnings_about(done.stderr, name)) == 1


def test_bad_values_under_a_real_server(services):
    """
    A server with a master and workers warns once about each bad value, and serves.
    """
    service = services.start("sync", **{PREFIX + name: value for name, value in BAD.items()})
    try:
        answers = service.get_all(["/slow?seconds=1.2"] * 4)
        assert [each.status for each in answers] == [200] * 4
        assert [len(service.entry(each.trace_id).snapshots) for each in answers] == [1] * 4
    finally:
        service.stop()
    assert {name: len(warnings_about(service.log, name)) for name in BAD} == dict.fromkeys(BAD, 1)


def test_empty_values_are_unset():
    """
    An empty variable is no variable.
    """
    done = run(slow(0), **{PREFIX + name: "" for name in [*BAD, *FREE]})

    assert result(done)[0] == 200
    assert ours(done.stderr) == []


def test_nothing_is_said_without_need():
    """
    With no variable set, nothing of ours is logged and the default threshold holds.
    """
    done = run(slow(1.3), **{PREFIX + "WATCHDOG_THRESHOLD": None})

    status, events, _ = result(done)
    assert status == 200
    assert [each["otel_introspect.threshold_ms"] for _, each in events] == [1000]
    assert done.stderr == ""


def test_flags_of_the_launcher():
    """
    Each variable is a flag of ``opentelemetry-instrument``.
    """
    done = run(
        slow(0.5),
        flags=["--introspect_watchdog_threshold", "200", "--introspect_watchdog_max_snapshots", "1"],
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=None,
    )

    status, events, _ = result(done)
    assert status == 200
    assert [each["otel_introspect.threshold_ms"] for _, each in events] == [200]


@pytest.mark.parametrize(
    ("variable", "value", "count"),
    [
        ("WATCHDOG_THRESHOLD", "0", 0),
        ("WATCHDOG_MAX_SNAPSHOTS", "1", 1),
        ("WATCHDOG_OBSERVERS", "signal", 0),
        ("WATCHDOG_OBSERVERS", "thread", 2),
        ("EXCLUDED_URLS", "nothing,slow", 0),
        ("EXCLUDED_URLS", "other", 2),
    ],
)
def test_settings_do_what_they_say(variable, value, count):
    """
    What is set decides how many snapshots a slow request has.
    """
    done = run(slow(0.8), **{PREFIX + variable: value})

    status, events, _ = result(done)
    assert status == 200
    assert len(events) == count


def test_excluded_urls_of_opentelemetry():
    """
    What ``OTEL_PYTHON_EXCLUDED_URLS`` leaves out is not watched, although other instrumentations may trace it.
    """
    done = run(slow(0.8), OTEL_PYTHON_EXCLUDED_URLS="slow")

    status, events, _ = result(done)
    assert status == 200
    assert not events


def test_a_short_limit_of_bytes():
    """
    No string is longer than ``MAX_ATTRIBUTE_BYTES``, whatever it holds.
    """
    done = run(slow(0.8), OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES="100")

    _, events, _ = result(done)
    strings = [
        text
        for _, attributes in events
        for value in attributes.values()
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str)
    ]
    assert len(events) == 2
    assert max(len(each.encode()) for each in strings) <= 100
    assert "sleeping_helper" in events[0][1]["code.stacktrace"]


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "introspect,introspect_django"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "introspect"},
        {"OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD": "0"},
    ],
)
def test_switched_off(environ):
    """
    Where nothing is sampled or we are switched off, there is no thread, no evidence and no word.
    """
    done = run(slow(0.5), **environ)

    status, events, threads = result(done)
    assert status == 200
    assert not events
    assert "otel-introspect" not in threads
    assert ours(done.stderr) == []


def test_without_django_instrumentation_of_opentelemetry():
    """
    Where OpenTelemetry's Django instrumentation is off there is no span, and nothing of ours fails.
    """
    done = run(slow(0.5), OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="django")

    status, events, _ = result(done)
    assert (status, events) == (200, None)
    assert ours(done.stderr) == []


def test_spans_that_are_recorded_but_not_sampled():
    """
    A span that is only recorded is not exported, so it has no evidence and no thread is started for it.
    """
    done = run(
        """
import threading, time, logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
class RecordOnly(Sampler):
    def should_sample(self, *args, **kwargs): return SamplingResult(Decision.RECORD_ONLY)
    def get_description(self): return "record only"
provider = TracerProvider(sampler=RecordOnly())
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
IntrospectInstrumentor().instrument(tracer_provider=provider, watchdog_threshold=50)
with provider.get_tracer("t").start_as_current_span("s") as span:
    time.sleep(0.2)
    print(len(span.events), dict(span.attributes), [t.name for t in threading.enumerate()])
""",
        launcher=False,
    )

    assert done.stdout.strip() == "0 {} ['MainThread']", done.stderr
    assert done.stderr == ""


def test_a_configuration_file(tmp_path):
    """
    What the configuration file says below our entry point's name is in force.
    """
    if importlib.util.find_spec("opentelemetry.sdk._configuration.file") is None and (
        importlib.util.find_spec("opentelemetry.configuration") is None
    ):
        pytest.skip("this SDK reads no configuration file")
    from opentelemetry.sdk import environment_variables as sdk

    variable = next(
        (
            name
            for name in ("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
            if name in vars(sdk) or hasattr(sdk, name)
        ),
        "OTEL_CONFIG_FILE",
    )
    file = tmp_path / "otel.yaml"
    file.write_text(
        """
file_format: "1.0"
propagator:
  composite:
    - tracecontext:
tracer_provider:
  processors:
    - simple:
        exporter:
          console:
instrumentation/development:
  python:
    introspect:
      watchdog_threshold: 200
      watchdog_max_snapshots: 1
"""
    )
    done = run(slow(0.7), OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD=None, **{variable: str(file)})

    status, events, _ = result(done)
    assert status == 200
    assert [each["otel_introspect.threshold_ms"] for _, each in events] == [200], done.stderr


CODE = """
import json, threading, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
def watched(provider):
    with provider.get_tracer("t").start_as_current_span("s") as span:
        time.sleep(0.3)
    return len(span.events)
"""


def test_keywords():
    """
    ``instrument(watchdog_threshold=...)`` comes before the environment; a mistyped keyword is named, not fatal.
    """
    done = run(
        CODE
        + """
provider = TracerProvider()
IntrospectInstrumentor().instrument(tracer_provider=provider, watchdog_threshold=100, watchdog_treshold=1)
print(watched(provider))
""",
        launcher=False,
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD="100000",
    )

    assert done.stdout.strip() == "2", done.stderr
    (line,) = ours(done.stderr)
    assert "watchdog_treshold" in line
    assert "Did you mean watchdog_threshold" in line


def test_instrument_before_there_is_a_provider():
    """
    Switched on before a provider is set, it says so once and watches from the first request on.
    """
    done = run(
        SITE.replace(
            "import django\n",
            """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.django import DjangoInstrumentor
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
IntrospectInstrumentor().instrument(watchdog_threshold=200)
IntrospectDjangoInstrumentor().instrument()
DjangoInstrumentor().instrument()
trace.set_tracer_provider(TracerProvider())
import django
""",
            1,
        )
        + SLOW % 0.5,
        launcher=False,
    )

    status, events, _ = result(done)
    assert status == 200
    assert len(events) == 2, "the first request is watched"
    assert len(ours(done.stderr)) == 1, done.stderr


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_the_order_of_the_instrumentors(order):
    """
    OpenTelemetry's Django instrumentor may be switched on before or after ours, and both off and on again.
    """
    done = run(
        """
import json
from django.conf import settings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.instrumentation.django import DjangoInstrumentor
from otel_introspect.instrumentation.introspect import IntrospectInstrumentor
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
import django.core.handlers.base as base
functions = base.BaseHandler.load_middleware, base.BaseHandler.make_view_atomic
middleware = list(settings.MIDDLEWARE)
trace.set_tracer_provider(TracerProvider())
def on():
    both = [IntrospectDjangoInstrumentor(), DjangoInstrumentor()]
    for each in both if ORDER == "ours first" else reversed(both):
        each.instrument()
    IntrospectInstrumentor().instrument(watchdog_threshold=200)
def off():
    for each in (IntrospectInstrumentor(), IntrospectDjangoInstrumentor(), DjangoInstrumentor()):
        each.uninstrument()
""".replace("ORDER", repr(order))
        + "on()"
        + SITE
        + """
def count():
    global client
    client = Client()
    status, entry = ask("/slow?seconds=0.5")
    return status, len(entry.events) if entry else None
seen = [count()]
off()
left = [t.name for t in threading.enumerate()], list(settings.MIDDLEWARE) == middleware
left += ((base.BaseHandler.load_middleware, base.BaseHandler.make_view_atomic) == functions,)
seen.append(count())
on(); on(); seen.append(count()); off(); off(); seen.append(count())
print(json.dumps([seen, left]))
""",
        launcher=False,
    )

    seen, left = result(done)
    assert seen == [[200, 2], [200, None], [200, 2], [200, None]]
    assert left == [["MainThread"], True, True]
    assert not [line for line in ours(done.stderr) if "failed" in line]


@pytest.mark.parametrize("seconds", [0.6, 30])
@pytest.mark.parametrize("ending", ["sys.exit(3)", "pass", "os.kill(os.getpid(), 15)", "raise KeyError('x')"])
def test_the_interpreter_ends_while_a_span_is_slow(ending, seconds):
    """
    The interpreter's end is the same as without us, though a span is slow and the introspector at work.
    """
    code = f"""
import os, sys, threading, time
from opentelemetry import trace
from opentelemetry.context import Context
spans = [trace.get_tracer("t").start_span(str(n), context=Context()) for n in range(50)]
threading.Thread(target=time.sleep, args=({seconds},), daemon=True).start()
time.sleep(0.06)
{ending}
"""
    mine = run(code, OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD="1", OTEL_PYTHON_INTROSPECT_WATCHDOG_MAX_SNAPSHOTS="32")
    theirs = run(code, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="introspect,introspect_django")

    assert mine.returncode == theirs.returncode
    assert mine.stderr == theirs.stderr
