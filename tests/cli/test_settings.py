"""What the doctor says about our variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.cli.diagnosis import settings
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.cli.diagnosis.surroundings import Interpreter, Surroundings
from otel_introspect.config import FAULTHANDLER_IS_SAFER, PREFIX, SETTINGS
from otel_introspect.setting import variables_of


def one(findings):
    (finding,) = findings
    return finding


def with_environ(environ):
    return Surroundings(environ=environ, versions={"otel-introspect": "0.1.0"})


def test_a_variable_is_shown_with_its_value_in_force():
    """
    A variable that is set and understood is named with the value that counts, as one would write it.
    """
    finding = one(settings.variables(with_environ({f"{PREFIX}WATCHDOG_OBSERVERS": " Thread "})))

    assert finding.level is Level.OK
    assert finding.message == f"{PREFIX}WATCHDOG_OBSERVERS=thread"


def test_a_bad_value_says_why_and_what_counts_instead():
    """
    A value that is not understood is a problem that says what was expected and which default is in force.
    """
    finding = one(settings.variables(with_environ({f"{PREFIX}WATCHDOG_THRESHOLD": "1s"})))

    assert finding.level is Level.PROBLEM
    assert f"{PREFIX}WATCHDOG_THRESHOLD=1s is not a whole number of 0 at least" in finding.message
    assert "1000" in finding.message
    assert finding.remedy


@pytest.mark.parametrize(
    "variable", [variable for config in SETTINGS for variable in variables_of(config).values() if "KEY" not in variable]
)
def test_every_variable_is_looked_at(variable):
    """
    No variable of ours is overlooked: whatever is set is named in a finding.
    """
    finding = one(settings.variables(with_environ({variable: "none"})))

    assert variable in finding.message


def test_the_key_is_never_shown():
    """
    The profiler's key and passwords in a URL are masked.
    """
    environ = {f"{PREFIX}PROFILER_KEY": "hush", f"{PREFIX}PROFILER_STORE": "s3://me:hush@bucket/profiles"}
    messages = " ".join(each.message for each in settings.variables(with_environ(environ)))

    assert "hush" not in messages
    assert "PROFILER_KEY=<set>" in messages
    assert "s3://<masked>@bucket/profiles" in messages


def test_excluded_urls_of_all_instrumentations_count_for_us():
    """
    OTEL_PYTHON_EXCLUDED_URLS is shown where it stands in for our own, and checked like it.
    """
    good = one(settings.variables(with_environ({"OTEL_PYTHON_EXCLUDED_URLS": "health"})))
    bad = one(settings.variables(with_environ({"OTEL_PYTHON_EXCLUDED_URLS": "("})))

    assert good.level is Level.OK
    assert bad.level is Level.PROBLEM


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("OTEL_PYTHON_INTROSPECT_WATCHDOG_TRESHOLD", "WATCHDOG_THRESHOLD"),
        ("OTEL_PYTHON_INTROSPECT_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVER", "WATCHDOG_OBSERVERS"),
        ("OTEL_PYTHON_INTROSPECT_KEY", "PROFILER_KEY"),
        ("OTEL_PYTHON_INTROSPECT_EXCLUDE_URLS", "EXCLUDED_URLS"),
        ("otel_python_introspect_timeout", "TIMEOUT"),
        ("OTEL_INTROSPECT_WATCHDOG_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("OTEL_PYTHON_INTROSPEC_WATCHDOG_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("OTEL_PYHTON_INTROSPECT_EVENTS", "EVENTS"),
        ("OTEL_PYTHON_INTROSPECTION_EVENTS", "EVENTS"),
        ("OTEL_PYTHON_INTROSPECTWATCHDOG_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("INTROSPECT_WATCHDOG_THRESHOLD", "WATCHDOG_THRESHOLD"),
        ("OTEL_PYTHON_INTROSPECT-WATCHDOG-THRESHOLD", "WATCHDOG_THRESHOLD"),
    ],
)
def test_a_mistyped_variable_is_named_with_the_nearest(wrong, right):
    """
    A misspelt name, or one with a misspelt prefix, is a problem that names the variable that was meant.
    """
    finding = one(settings.mistyped(with_environ({wrong: "1"})))

    assert finding.level is Level.PROBLEM
    assert wrong in finding.message
    assert finding.remedy == f"Did you mean {PREFIX}{right}?"


def test_a_name_with_our_prefix_that_is_like_none_is_named_all_the_same():
    """
    Whatever has our prefix was meant for us, so a name that is near none of ours is a problem, too.
    """
    finding = one(settings.mistyped(with_environ({f"{PREFIX}FLUX": "1"})))

    assert finding.level is Level.PROBLEM
    assert "Did you mean" not in finding.remedy


@pytest.mark.parametrize(
    "foreign",
    [
        "OTEL_PYTHON_EXCLUDED_URLS",
        "OTEL_PYTHON_DJANGO_EXCLUDED_URLS",
        "OTEL_PYTHON_DJANGO_INSTRUMENT",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "OAUTH_INTROSPECT_TIMEOUT",
        "INTROSPECTION_URL",
        "INTROSPECT_TIMEOUT",
        "OTEL_SERVICE_NAME",
        "PATH",
        "",
        "_",
    ],
)
def test_other_peoples_variables_are_left_alone(foreign):
    """
    A variable of OpenTelemetry or of another program is not taken for a misspelling of ours.
    """
    assert list(settings.mistyped(with_environ({foreign: "1"}))) == []


@pytest.mark.parametrize("variable", sorted(settings.KNOWN))
def test_our_own_variables_are_not_mistyped(variable):
    """
    None of our variables is taken for a misspelling of another.
    """
    assert list(settings.mistyped(with_environ({variable: "1"}))) == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "An entry span open longer than 1000 ms gets up to 5 snapshots, at 1, 2, 4, 8, 16 s."),
        (
            {"WATCHDOG_THRESHOLD": "1500", "WATCHDOG_MAX_SNAPSHOTS": "1"},
            "An entry span open longer than 1500 ms gets one snapshot, at 1500 ms.",
        ),
        (
            {"WATCHDOG_MAX_SNAPSHOTS": "9", "WATCHDOG_ALL_THREADS": "true"},
            (
                "An entry span open longer than 1000 ms gets up to 9 snapshots, at 1, 2, 4, 8, 16, 32, 64, 128 s "
                "and so on. The stacks of the other threads are added once."
            ),
        ),
    ],
)
def test_the_watchdogs_plan_is_one_sentence(environ, expected):
    """
    What the watchdog will do is said with the settings in force.
    """
    here = with_environ({PREFIX + name: value for name, value in environ.items()})

    assert one(settings.watchdog(here)).message == expected


def test_the_watchdog_being_off_is_a_problem():
    """
    A threshold of 0 records nothing, so it is a problem however much it was meant.
    """
    finding = one(settings.watchdog(with_environ({f"{PREFIX}WATCHDOG_THRESHOLD": "0"})))

    assert finding.level is Level.PROBLEM


def test_a_threshold_that_looks_like_seconds_is_noted():
    """
    A threshold of a few milliseconds is asked about.
    """
    _, finding = settings.watchdog(with_environ({f"{PREFIX}WATCHDOG_THRESHOLD": "5"}))

    assert finding.level is Level.NOTE
    assert finding.remedy.endswith("WATCHDOG_THRESHOLD=5000")


def test_no_observer_without_the_gil():
    """
    Where the GIL is off no thread may be looked at, and the user is told.
    """
    here = Surroundings(environ={}, interpreter=Interpreter(free_threaded=True, gil=False))

    assert one(settings.observers(here)).level is Level.PROBLEM


def test_each_observer_is_named():
    """
    Each observer that is asked for says what it sees; faulthandler's risk is a note; without thread there is a problem.
    """
    two = list(settings.observers(with_environ({f"{PREFIX}WATCHDOG_OBSERVERS": "thread,signal"})))
    third = list(settings.observers(with_environ({f"{PREFIX}WATCHDOG_OBSERVERS": "thread,faulthandler"})))
    alone = list(settings.observers(with_environ({f"{PREFIX}WATCHDOG_OBSERVERS": "signal"})))

    assert [(each.level, each.message.partition(":")[0]) for each in two] == [
        (Level.OK, "thread"),
        (Level.OK, "signal"),
    ]
    assert third[1].message.startswith("faulthandler: ")
    assert third[1].level is (Level.OK if FAULTHANDLER_IS_SAFER else Level.NOTE)
    assert [each.level for each in alone] == [Level.PROBLEM]


def test_texts_longer_than_tempo_keeps_are_noted():
    """
    More bytes than Tempo keeps cost the innermost frames there.
    """
    finding = one(settings.evidence(with_environ({f"{PREFIX}MAX_ATTRIBUTE_BYTES": "4000"})))

    assert finding.level is Level.NOTE


@given(
    st.dictionaries(st.sampled_from(sorted(settings.KNOWN)) | st.text(max_size=40), st.text(max_size=60), max_size=8)
)
def test_no_environment_upsets_the_checks(environ):
    """
    Whatever the environment holds, each check comes to an end, and each problem says what to do.
    """
    here = with_environ(environ)
    checks = (settings.variables, settings.mistyped, settings.watchdog, settings.observers, settings.evidence)
    findings = [finding for check in checks for finding in check(here)]

    assert all(each.remedy for each in findings if each.level is Level.PROBLEM)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://collector:4318", "http://collector:4318"),
        ("http://me:hush@collector:4318/x", "http://<masked>@collector:4318/x"),
        ("http://me:hush@[::1", "http://<masked>@[::1"),
        ("plain text", "plain text"),
    ],
)
def test_a_shown_url_has_no_password(url, shown):
    """
    Who logs in at a URL is masked, even where the URL is broken.
    """
    assert settings.without_password(url) == shown
