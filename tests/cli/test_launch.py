"""What the doctor says about the launcher, OpenTelemetry and Django."""

import sys

import pytest

from otel_introspect.cli.diagnosis import launch
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.cli.diagnosis.surroundings import CONFIGURATORS, Interpreter, Plugin, Surroundings

DISABLED = launch.DISABLED_INSTRUMENTATIONS


def problems(findings):
    return [each for each in findings if each.level is Level.PROBLEM]


def notes(findings):
    return [each.message for each in findings if each.level is Level.NOTE]


@pytest.mark.parametrize("check", [launch.python, launch.sdk, launch.launcher, launch.instrumentors, launch.django])
def test_nothing_is_found_where_nothing_is_wrong(healthy, check):
    """
    Where everything is in place every finding is ok.
    """
    findings = list(check(healthy()))

    assert findings
    assert {each.level for each in findings} == {Level.OK}


def test_a_free_threaded_build_is_named(healthy):
    """
    The kind of build, and whether the GIL is on, belong to the Python's name.
    """
    first, _ = launch.python(healthy(interpreter=Interpreter(name="CPython 3.13.0", free_threaded=True, gil=False)))

    assert first.message == "CPython 3.13.0, free-threaded build with the GIL off"


def test_not_being_installed_is_a_problem(healthy):
    """
    A source tree on the path has no entry points, so the launcher does not find us.
    """
    (finding,) = problems(launch.python(healthy(without=("otel-introspect",))))

    assert "entry points" in finding.message


@pytest.mark.parametrize("absent", ["opentelemetry-api", "opentelemetry-sdk"])
def test_a_missing_sdk_is_a_problem(healthy, absent):
    """
    Without API or SDK there are no spans.
    """
    (finding,) = problems(launch.sdk(healthy(without=(absent,))))

    assert finding.message.startswith(absent)


def test_sdk_and_api_of_different_versions_are_noted(healthy):
    """
    An SDK with another version's API is noted.
    """
    (message,) = notes(launch.sdk(healthy(versions={"opentelemetry-api": "1.33.0"})))

    assert "1.33.0" in message


@pytest.mark.parametrize("value", ["true", " TRUE "])
def test_a_disabled_sdk_is_a_problem(healthy, value):
    """
    OTEL_SDK_DISABLED=true means that there is nothing to watch.
    """
    (finding,) = problems(launch.sdk(healthy({"OTEL_SDK_DISABLED": value})))

    assert "OTEL_SDK_DISABLED" in finding.message


def test_a_missing_launcher_is_a_problem(healthy):
    """
    Without opentelemetry-instrumentation there is no launcher.
    """
    assert problems(launch.launcher(healthy(without=("opentelemetry-instrumentation",))))


def test_a_launcher_that_the_shell_does_not_find_is_noted(healthy, tmp_path):
    """
    A launcher that is off PATH, or on PATH but of another environment, is noted with where ours is.
    """
    absent = launch.launcher(healthy(launcher=None))
    foreign = launch.launcher(healthy(launcher=tmp_path / "elsewhere" / "opentelemetry-instrument"))

    assert "not on PATH" in notes(absent)[0]
    assert "another environment" in notes(foreign)[0]


def test_nobody_to_set_up_a_provider_is_a_problem(healthy):
    """
    Without a distro nothing sets up a tracer provider, and the remedy names the distribution that does.
    """
    (finding,) = problems(launch.launcher(healthy(plugins={CONFIGURATORS: ()})))

    assert finding.remedy == "pip install opentelemetry-distro"


def test_a_configurator_that_is_not_there_is_a_problem(healthy):
    """
    A name in OTEL_PYTHON_CONFIGURATOR that is not installed leaves the provider unset.
    """
    (finding,) = problems(launch.launcher(healthy({"OTEL_PYTHON_CONFIGURATOR": "other"})))

    assert "OTEL_PYTHON_CONFIGURATOR=other" in finding.message


def test_the_first_configurator_is_the_one_that_runs(healthy):
    """
    Of several configurators the launcher takes the first, unless one is named.
    """
    two = (Plugin("a", "a:A", "first 1"), Plugin("b", "b:B", "second 2"))

    assert launch.chosen_configurator(healthy(plugins={CONFIGURATORS: two})) == two[0]
    named = healthy({"OTEL_PYTHON_CONFIGURATOR": "b"}, plugins={CONFIGURATORS: two})
    assert launch.chosen_configurator(named) == two[1]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("introspect", ["introspect"]),
        ("sqlite3, introspect_django ", ["introspect_django"]),
        ("introspect_gunicorn", ["introspect_gunicorn"]),
        ("*", ["introspect", "introspect_django", "introspect_gunicorn"]),
        ("sqlite3,*", ["introspect", "introspect_django", "introspect_gunicorn"]),
    ],
)
def test_ours_being_disabled_is_a_problem(healthy, value, names):
    """
    Each instrumentor of ours that OTEL_PYTHON_DISABLED_INSTRUMENTATIONS turns off is a problem of its own.
    """
    found = problems(launch.instrumentors(healthy({DISABLED: value})))

    assert [each.message.split(",")[1].strip() for each in found] == names


def test_others_being_disabled_is_noted(healthy):
    """
    What else is disabled, or named there without being installed, is noted.
    """
    messages = notes(launch.instrumentors(healthy({DISABLED: "sqlite3,flaks"})))

    assert any("sqlite3" in each for each in messages)
    assert any("flaks" in each for each in messages)


def test_introspect_django_is_not_missed_without_django(healthy):
    """
    Where there is no Django its instrumentor may be disabled.
    """
    here = healthy({DISABLED: "introspect_django"}, without=("django",))

    assert problems(launch.instrumentors(here)) == []


def test_entry_points_that_are_gone_are_a_problem(healthy):
    """
    An installation without our entry points is a broken one.
    """
    here = healthy(plugins={launch.INSTRUMENTORS: (Plugin("sqlite3"),)})

    assert len(problems(launch.instrumentors(here))) == 3


def test_no_django_is_only_noted(healthy):
    """
    A service without Django is as good as any other.
    """
    (finding,) = launch.django(healthy(without=("django",)))

    assert finding.level is Level.NOTE


def test_settings_that_are_not_exported_are_a_problem(healthy):
    """
    Django's settings must be named before the launcher starts.
    """
    (finding,) = problems(launch.django(healthy({"DJANGO_SETTINGS_MODULE": ""})))

    assert "export DJANGO_SETTINGS_MODULE" in finding.remedy


@pytest.mark.parametrize("module", ["shop.setings", "shap.settings", "shop.settings.dev", "shop..settings", "json."])
def test_settings_that_cannot_be_found_are_a_problem(healthy, module):
    """
    A settings module that cannot be found from here is a problem.
    """
    (finding,) = problems(launch.django(healthy({"DJANGO_SETTINGS_MODULE": module})))

    assert module in finding.message


def test_the_settings_are_looked_for_without_importing_them(healthy):
    """
    The settings, which raise when imported, and their package stay unimported.
    """
    assert problems(launch.django(healthy())) == []
    assert not {"shop", "shop.settings"} & set(sys.modules)


@pytest.mark.parametrize(("module", "there"), [("json.decoder", True), ("json.nothing", False), ("sys.x", False)])
def test_modules_of_the_path_are_found(module, there):
    """
    A module that is on the path, not in this directory, is found as well.
    """
    assert Surroundings(environ={}).has_module(module) is there


@pytest.mark.parametrize(
    ("environ", "without"),
    [({}, ("django",)), ({DISABLED: "django"}, ()), ({"OTEL_PYTHON_DJANGO_INSTRUMENT": "False"}, ())],
)
def test_django_without_its_instrumentation_has_no_spans(healthy, environ, without):
    """
    A Django service whose requests get no spans is a problem; Django merely being installed is a note.
    """
    plugins = {launch.INSTRUMENTORS: tuple(Plugin(each) for each in ("django", "introspect") if each not in without)}
    in_use = healthy(environ, plugins=plugins)
    idle = healthy({**environ, "DJANGO_SETTINGS_MODULE": ""}, plugins=plugins)

    assert [each.level for each in launch.django(in_use)] == [Level.PROBLEM]
    assert [each.level for each in launch.django(idle)] == [Level.NOTE]


def test_asgi_needs_one_more_package(healthy):
    """
    That ASGI requests get no span without opentelemetry-instrumentation-asgi is noted.
    """
    (message,) = notes(launch.django(healthy(without=("opentelemetry-instrumentation-asgi",))))

    assert "opentelemetry-instrumentation-asgi" in message
