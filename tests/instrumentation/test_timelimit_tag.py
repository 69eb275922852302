"""``{% timelimit %}``: what takes too long in a template is left out, and the rest of the page is as it would be."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction

import pytest

pytest.importorskip("django")

import deadline_site  # noqa: F401 - it sets Django up
from django.http import HttpResponse
from django.template import Context, Engine, Library, TemplateSyntaxError
from django.test import Client, override_settings
from django.urls import path
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_introspect import DeadlineExceeded, Quota, disable_timeouts, timeout, timeouts
from otel_introspect.config import IntrospectConfig, TimeoutConfig
from otel_introspect.errors import RequestInterrupted
from otel_introspect.instrumentation.django import IntrospectDjangoInstrumentor
from otel_introspect.introspection import Introspection, activate

FOREVER = 20.0
LIBRARY = "otel_introspect.instrumentation.django.templatetags.timelimit"

register = Library()


@register.filter
def catastrophic(text):
    return re.match(r"(a+)+$", text)


@register.filter
def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "busy"


@register.filter
def asleep(seconds):
    time.sleep(seconds)
    return "slept"


@register.simple_tag
def sleep(seconds):
    time.sleep(seconds)
    return ""


@register.filter
def swallowing(seconds):
    try:
        time.sleep(seconds)
    except BaseException:  # noqa: BLE001 - what some code does
        return "swallowed"


@register.filter
def failing(_value):
    raise LookupError("the filter's own")


@register.simple_tag(takes_context=True)
def upset(context, **_):
    """Leave the context as an interruption at a bad moment could."""
    context.push()
    context["left"] = "by the body"
    context.autoescape = False
    context.dicts[1]["name"] = "changed"
    time.sleep(FOREVER)


class Endless:
    def __contains__(self, _):
        time.sleep(FOREVER)
        return True


class Slow:
    def __str__(self):
        time.sleep(FOREVER)
        return "slow"


@pytest.fixture(autouse=True)
def _given_back():
    """Handler and timer are given back at once, and nothing lasted to its own end."""
    started = time.monotonic()

    yield

    took = time.monotonic() - started
    timeouts.enable_timeouts()
    timeouts.release()
    assert took < FOREVER / 2, "what should last for ever came to its end"


def engine(*, debug=False, **templates):
    return Engine(
        libraries={
            "timelimit": LIBRARY,
            "slow": __name__,
            "l10n": "django.templatetags.l10n",
            "tz": "django.templatetags.tz",
        },
        debug=debug,
        loaders=[
            ("django.template.loaders.cached.Loader", [("django.template.loaders.locmem.Loader", templates)]),
        ],
    )


def render(text, context=None, *, debug=False, **templates):
    loads = "{% load timelimit slow %}"
    return engine(debug=debug, **templates).from_string(loads + text).render(Context(context or {}))


def late(body, **context):
    return render("<{% timelimit 0.05 %}before " + body + "{% else %}{{ name }}{% endtimelimit %}>", context)


def in_thread(work):
    outcome = []

    def run():
        outcome.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(FOREVER)
    return outcome[0]


@pytest.mark.parametrize(
    "body",
    [
        "{{ endless_text|catastrophic }}",
        "{{ 20|asleep }}",
        "{{ 20|busy }}",
        "{{ slow }}",
        "{% sleep 20 %}",
        "{% if 1 in endless %}a{% else %}b{% endif %}",
        "{% for each in numbers %}{{ 0.01|asleep }}{% endfor %}",
        "{{ 20|swallowing }}",
        "{% filter upper %}{% sleep 20 %}{% endfilter %}",
    ],
)
def test_what_takes_too_long_is_replaced(body):
    """
    Whatever takes the time, a regular expression too, and swallows exceptions, only the other part is rendered.
    """
    context = {"endless": Endless(), "slow": Slow(), "numbers": range(2000), "endless_text": "a" * 47 + "!"}

    assert late(body, name="instead", **context) == "<instead>"


def test_without_an_else_nothing_is_left():
    """
    Without an else part there is nothing where the limited part would have been.
    """
    assert render("<{% timelimit 0.05 %}before {% sleep 20 %}{% endtimelimit %}>") == "<>"


def test_in_time():
    """
    What is done in time is rendered as if there were no limit, and variables that it sets stay.
    """
    text = "{% timelimit 5 %}{{ name }}{% cycle 'one' 'two' as count %}{% else %}late{% endtimelimit %}"

    assert render(text + " {{ count }}", {"name": "<b>"}) == "&lt;b&gt;one one"


@pytest.mark.parametrize(
    "seconds", [0.05, Decimal("0.05"), "0.05", " 0.05 ", Fraction(1, 20)], ids=lambda value: type(value).__name__
)
def test_seconds_may_be_any_number(seconds):
    """
    The seconds may come from the context, as a number of any kind or as text.
    """
    assert render("{% timelimit limit %}{% sleep 20 %}{% else %}late{% endtimelimit %}", {"limit": seconds}) == "late"


@pytest.mark.parametrize("literal", ["0.05", "'0.05'", "limit.of|default:0.05", "'0.0500'|slice:':4'", ".05"])
def test_seconds_may_be_an_expression(literal):
    """
    The seconds may be written as a number, as text, as a variable's attribute or with filters.
    """
    assert render("{% timelimit " + literal + " %}{% sleep 20 %}{% else %}late{% endtimelimit %}") == "late"


@pytest.mark.parametrize("seconds", [None, float("inf"), 10**400, Decimal("1e999"), 1e12])
def test_no_limit(seconds):
    """
    None, and what is longer than any process lives, is no limit.
    """
    assert render("{% timelimit limit %}done{% else %}late{% endtimelimit %}", {"limit": seconds}) == "done"


@pytest.mark.parametrize("literal", ["0", "-1", "'soon'", "''", "0.0", "'nan'"])
def test_a_literal_that_can_t_be_a_limit(literal):
    """
    What is written in the template and can't be a limit is an error when that is compiled, with what was expected.
    """
    with pytest.raises(TemplateSyntaxError, match="a number of seconds that is more than 0"):
        engine().from_string("{% load timelimit %}{% timelimit " + literal + " %}{% endtimelimit %}")


@pytest.mark.parametrize("words", ["", "1 2", "1 as limit"])
def test_a_wrong_number_of_words(words):
    """
    The tag takes one value; anything else is an error that shows how it is written.
    """
    with pytest.raises(TemplateSyntaxError, match=re.escape("{% timelimit 0.5 %}")):
        engine().from_string("{% load timelimit %}{% timelimit " + words + " %}{% endtimelimit %}")


def test_an_unclosed_tag():
    """
    A tag without its end is Django's own error, which names it.
    """
    with pytest.raises(TemplateSyntaxError, match="timelimit"):
        engine().from_string("{% load timelimit %}{% timelimit 1 %}")


class Hostile:
    """Nothing may be asked of it for a message."""

    def __repr__(self):
        raise RuntimeError("asked for its repr")


BAD = [0, -1, "", "soon", float("nan"), True, [], Hostile(), Decimal("NaN"), "1e"]


@pytest.mark.parametrize("seconds", BAD, ids=lambda value: type(value).__name__)
def test_a_value_that_can_t_be_a_limit_while_debugging(seconds):
    """
    With the engine's debug, a value that can't be a limit is an error that says so, as other mistakes are.
    """
    with pytest.raises(TemplateSyntaxError, match="a number of seconds that is more than 0"):
        render("{% timelimit limit %}done{% endtimelimit %}", {"limit": seconds}, debug=True)


@pytest.mark.parametrize("seconds", BAD, ids=lambda value: type(value).__name__)
def test_a_value_that_can_t_be_a_limit_in_production(seconds, caplog):
    """
    Without it the part is rendered without a limit, and the log says so once.
    """
    for _ in range(3):
        assert render("{% timelimit limit %}done{% else %}late{% endtimelimit %}", {"limit": seconds}) == "done"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_undefined_variable(caplog):
    """
    A variable that is not defined is no limit either, and says so.
    """
    assert render("{% timelimit nowhere %}done{% endtimelimit %}") == "done"
    assert "not ''" in caplog.text


# In each other, and in other limits.

NESTED = (
    "{% timelimit outer %}[{% timelimit inner %}{% sleep 20 %}{% else %}inner late{% endtimelimit %}"
    "{{ after|asleep }}]{% else %}outer late{% endtimelimit %}"
)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"outer": 10, "inner": 0.05, "after": 0}, "[inner lateslept]"),
        ({"outer": 0.05, "inner": 10, "after": 0}, "outer late"),
        ({"outer": 0.2, "inner": 0.05, "after": 20}, "outer late"),
    ],
)
def test_nested(limits, expected):
    """
    Each tag answers for its own limit: the inner one's part, the outer one's, or both in turn.
    """
    assert render(NESTED, limits) == expected


@pytest.mark.parametrize("error", [DeadlineExceeded, RequestInterrupted, LookupError])
def test_a_limit_around_the_template(error):
    """
    A limit that lies outside, the request's own among them, goes through the tag as if that were not there.
    """
    started = time.monotonic()
    with pytest.raises(error), timeout(0.05, error):
        render("{% timelimit 10 %}{% sleep 20 %}{% else %}late{% endtimelimit %}")

    assert time.monotonic() - started < FOREVER / 2


def test_other_exceptions_pass():
    """
    What the template itself raises comes out, and the else part is not rendered.
    """
    with pytest.raises(LookupError, match="the filter's own"):
        render("{% timelimit 10 %}{{ 1|failing }}{% else %}late{% endtimelimit %}")


def test_an_else_part_that_fails():
    """
    What the else part raises comes out, with no trace of the interruption in it.
    """
    with pytest.raises(LookupError) as raised:
        render("{% timelimit 0.05 %}{% sleep 20 %}{% else %}{{ 1|failing }}{% endtimelimit %}")

    assert raised.value.__context__ is None


def test_a_quota_is_shared():
    """
    A Quota is used up by one rendering after the other, and when it is, the body is not begun.
    """
    quota = Quota(0.12)
    text = "{% for each in turns %}{% timelimit quota %}{{ each|asleep }}{% else %}late{% endtimelimit %} {% endfor %}"

    assert render(text, {"quota": quota, "turns": [0, 20, 20, 0]}) == "slept late late late "
    assert quota.remaining() == 0


# What is left of an interrupted part.


def test_the_context_is_as_it_was():
    """
    The else part and what follows see the variables that there were, and escape what they did.
    """
    text = "{% timelimit 0.05 %}{% upset %}{% else %}{{ name }}{{ left }}{% endtimelimit %} {{ name }}{{ left }}"

    assert render(text, {"name": "<i>"}) == "&lt;i&gt; &lt;i&gt;"


@pytest.mark.parametrize(
    "body",
    [
        "{% autoescape off %}{% sleep 20 %}{% endautoescape %}",
        "{% with name='other' %}{% sleep 20 %}{% endwith %}",
        "{% for name in endless %}{{ 20|asleep }}{% endfor %}",
        "{% load l10n %}{% localize off %}{% sleep 20 %}{% endlocalize %}",
        "{% load tz %}{% localtime off %}{% sleep 20 %}{% endlocaltime %}",
        "{% sleep 0 as name %}{% sleep 20 %}",
        "{% include 'slow.html' with name='other' %}",
    ],
)
def test_tags_that_are_interrupted_leave_nothing(body):
    """
    An interruption within any of Django's own tags leaves the context's variables and switches as they were.
    """
    context = Context({"name": "<b>", "endless": range(3)})
    template = engine(**{"slow.html": "{% load slow %}{{ 20|asleep }}"}).from_string(
        "{% load timelimit slow %}{% timelimit 0.05 %}" + body + "{% else %}{{ name }}{% endtimelimit %} {{ name }}"
    )
    before = (context.flatten(), context.autoescape, context.use_l10n, context.use_tz)

    assert template.render(context) == "&lt;b&gt; &lt;b&gt;"
    assert (context.flatten(), context.autoescape, context.use_l10n, context.use_tz) == before


def test_blocks_inside_are_found():
    """
    A block that stands in the tag can be overridden by a child template, whichever part it is in.
    """
    base = (
        "{% load timelimit slow %}<{% timelimit 0.2 %}{% block main %}{% endblock %}"
        "{% else %}{% block late %}{% endblock %}{% endtimelimit %}>"
    )
    child = (
        "{% extends 'base.html' %}{% block main %}mine{{ wait|asleep }}{% endblock %}"
        "{% block late %}mine is late{% endblock %}"
    )

    assert [render_named("child.html", {"wait": wait}, base=base, child=child) for wait in (0, 20)] == [
        "<mineslept>",
        "<mine is late>",
    ]


def render_named(name, context, base, child):
    loads = "{% load timelimit slow %}"
    where, what = child.split("%}", 1)
    templates = {"base.html": base, "child.html": f"{where}%}}{loads}{what}"}
    return engine(**templates).get_template(name).render(Context(context))


def test_a_block_s_super_after_an_interruption():
    """
    A block that was interrupted within what it overrides can still be asked for that.
    """
    base = "{% load slow %}<{% block main %}base{{ naps.pop|asleep }}{% endblock %}>"
    child = (
        "{% extends 'base.html' %}{% block main %}{% timelimit 0.05 %}{{ block.super }}{% else %}"
        "{{ block.super }}, late{% endtimelimit %}{% endblock %}"
    )

    assert render_named("child.html", {"naps": [0, 20]}, base=base, child=child) == "<baseslept, late>"


def test_a_template_is_shared_by_threads():
    """
    One cached template, rendered by several threads at once with different limits, serves each of them its own part.
    """
    text = "{% load timelimit slow %}{% timelimit limit %}{{ 300|naps }}{% else %}late{% endtimelimit %}"
    template = engine(page=text).get_template("page")
    results = {}

    def work(number):
        results[number] = template.render(Context({"limit": 0.05 if number % 2 else 10}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FOREVER)

    assert results == {number: "late" if number % 2 else "napped" for number in range(6)}


@register.filter
def naps(count):
    for _ in range(count):
        time.sleep(0.001)
    return "napped"


# By what means.


@pytest.fixture(name="span_of")
def _span_of():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def span_of(work):
        with provider.get_tracer(__name__).start_as_current_span("GET /"):
            assert work() is not None
        return exporter.get_finished_spans()[-1]

    yield span_of

    provider.shutdown()


def test_the_span_says_where_it_was(span_of):
    """
    The current span gets the same evidence as from any other limit, with the place in the template's code.
    """
    span = span_of(lambda: late("{{ 20|asleep }}"))

    (event,) = span.events
    assert event.name == "otel_introspect.timeout"
    assert event.attributes["otel_introspect.timeout.limit_ms"] == 50
    assert event.attributes["otel_introspect.timeout.mechanism"] == "alarm"
    assert event.attributes["otel_introspect.timeout.enforced"] is True
    assert "in asleep" in event.attributes["code.stacktrace"]
    assert span.attributes["otel_introspect.interrupted"] is True
    assert span.attributes["error.type"] == "RenderingInterrupted"
    assert span.status.status_code is StatusCode.ERROR


def test_in_time_the_span_says_nothing(span_of):
    """
    A limit that is kept leaves nothing on the span.
    """
    span = span_of(lambda: render("{% timelimit 5 %}done{% endtimelimit %}"))

    assert not span.events
    assert span.status.status_code is StatusCode.UNSET


def test_in_another_thread(span_of):
    """
    In a thread that is not the main one, what runs Python is interrupted where CPython next looks.
    """
    text = "{% timelimit 0.05 %}{{ 10000|naps }}{% else %}late{% endtimelimit %}"

    assert in_thread(lambda: render(text)) == "late"


def test_in_an_event_loop(span_of):
    """
    Where a coroutine renders, nothing can interrupt that, as nothing else runs on its loop; the span says so.
    """

    async def view():
        return late("{{ 0.2|asleep }}", name="late")

    page = []
    span = span_of(lambda: page.append(asyncio.run(view())) or page)

    assert page == ["<before slept>"]
    (event,) = span.events
    assert event.attributes["otel_introspect.timeout.mechanism"] == "task_cancel"
    assert event.attributes["otel_introspect.timeout.enforced"] is False


def test_disabled():
    """
    While timeouts are disabled no part is interrupted.
    """
    disable_timeouts()

    assert late("{{ 0.2|asleep }}", name="late") == "<before slept>"


def test_somebody_else_s_handler_is_given_back():
    """
    A handler for SIGALRM that was there before is there afterwards.
    """
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        mine = signal.getsignal(signal.SIGALRM)
        assert late("{% sleep 20 %}", name="late") == "<late>"
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.signal(signal.SIGALRM, before)


# In a request.


def slow_page(request):
    text = "{% timelimit limit %}{% sleep 20 %}{% else %}late{% endtimelimit %}"
    return HttpResponse(render(text, {"limit": request.GET["limit"]}))


urlpatterns = [path("page", slow_page)]


@pytest.fixture(name="get")
def _get():
    """Asks for the page, of which the whole may take 500 ms."""
    provider = TracerProvider()
    DjangoInstrumentor().instrument(tracer_provider=provider)
    instrumentor = IntrospectDjangoInstrumentor()
    instrumentor.instrument()
    activate(Introspection(IntrospectConfig(timeout=TimeoutConfig(timeout=500)), tracer_provider=provider))

    with override_settings(ROOT_URLCONF=__name__):
        yield lambda limit: Client(raise_request_exception=False).get("/page", {"limit": limit})

    instrumentor.uninstrument()
    DjangoInstrumentor().uninstrument()
    provider.shutdown()


def test_a_request_in_time(get):
    """
    A request whose page has been cut short by the tag, within its own deadline, is answered as any other.
    """
    response = get("0.05")

    assert (response.status_code, response.content) == (200, b"late")


def test_a_request_past_its_deadline(get):
    """
    A request whose own deadline comes before the tag's is answered with 503, and not with the tag's other part.
    """
    response = get("10")

    assert (response.status_code, response.content) == (503, b"The request took too long.\n")


# How it is found.

PROJECT = """
import json
import time
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["otel_introspect.instrumentation.django"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
from django.apps import apps
from django.core.checks import run_checks
from django.template import engines

template = engines["django"].from_string(
    "{% load timelimit %}{% timelimit 0.05 %}{{ slow }}{% else %}late{% endtimelimit %}"
)
slow = lambda: time.sleep(20)
print(json.dumps([template.render({"slow": slow}), apps.get_app_config("otel_introspect").name, len(run_checks())]))
"""


def test_as_an_application():
    """
    In ``INSTALLED_APPS`` the package has the label ``otel_introspect``, no complaint of Django's, and brings the tag.
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROJECT], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == ["late", "otel_introspect.instrumentation.django", 0]
