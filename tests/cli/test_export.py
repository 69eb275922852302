"""What the doctor says about exporters, sampler and limits."""

import pytest

from otel_introspect.cli.diagnosis import export
from otel_introspect.cli.diagnosis.finding import Level
from otel_introspect.cli.diagnosis.surroundings import CONFIGURATORS, DISTROS, Plugin, exporters_of

OTLP = {"OTEL_TRACES_EXPORTER": "otlp"}


def levels(findings):
    return [each.level for each in findings]


def one(findings):
    (finding,) = findings
    return finding


@pytest.mark.parametrize("name", ["console", "introspect_console", "console,introspect_console"])
def test_exporters_without_an_endpoint_need_none(healthy, name):
    """
    An exporter that writes to the console is fine as it is.
    """
    assert set(levels(export.exporters(healthy({"OTEL_TRACES_EXPORTER": name})))) == {Level.OK}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": ""}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "None"}, []),
        ({"OTEL_TRACES_EXPORTER": ""}, []),
    ],
)
def test_the_exporter_is_found_by_the_sdks_rules(healthy, environ, expected):
    """
    Names and protocol lead to the entry points that the SDK will ask for.
    """
    here = healthy(environ)
    if "OTEL_TRACES_EXPORTER" not in environ:
        here = healthy({**environ, **OTLP})

    assert export.exporter_names(here, "traces") == expected


def test_the_distro_makes_otlp_the_default(healthy):
    """
    With OpenTelemetry's own distro an unset variable means otlp; with another one we cannot know.
    """
    own, other = healthy(), healthy(plugins={DISTROS: (Plugin("x", "x:X"),)})
    for here in (own, other):
        del here.environ["OTEL_TRACES_EXPORTER"]

    assert export.exporter_names(own, "traces") == ["otlp_proto_grpc"]
    assert export.exporter_names(other, "traces") == []
    assert levels(export.exporters(other)) == [Level.NOTE]


def test_a_protocol_that_the_sdk_refuses_is_a_problem(healthy):
    """
    Any protocol but grpc and http/protobuf makes the launcher give up.
    """
    finding = one(export.exporters(healthy({**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})))

    assert finding.level is Level.PROBLEM
    assert "http/json" in finding.message


@pytest.mark.parametrize(("value", "said"), [("none", "is none"), ("", "set but empty")])
def test_no_exporter_is_a_problem(healthy, value, said):
    """
    Evidence that leaves the process by no exporter is of no use; an empty variable means none, not otlp.
    """
    finding = one(export.exporters(healthy({"OTEL_TRACES_EXPORTER": value})))

    assert finding.level is Level.PROBLEM
    assert said in finding.message


def test_an_exporter_that_is_not_installed_is_a_problem_once(healthy):
    """
    One exporter that is missing for traces, metrics and logs is one problem, whose remedy is what is installed.
    """
    plugins = {exporters_of(each): (Plugin("otlp_proto_http"),) for each in ("traces", "metrics", "logs")}
    finding = one(export.exporters(healthy(OTLP, plugins=plugins)))

    assert finding.level is Level.PROBLEM
    assert all(f"OTEL_{each}_EXPORTER" in finding.message for each in ("TRACES", "METRICS", "LOGS"))
    assert finding.remedy.startswith("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")


def test_a_missing_exporter_of_metrics_is_a_problem_for_traces(healthy):
    """
    The launcher gives up on everything when the exporter of the metrics is missing, so that is a problem for us.
    """
    plugins = {exporters_of(each): () for each in ("metrics", "logs")}
    *_, finding = export.exporters(healthy(plugins=plugins))

    assert finding.level is Level.PROBLEM
    assert "OTEL_METRICS_EXPORTER=none and OTEL_LOGS_EXPORTER=none" in finding.remedy


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("introspect-console", "Did you mean introspect_console?"),
        ("console,none", "none goes alone"),
        ("otlp_json_file", "pip install opentelemetry-exporter-otlp-json-file"),
        ("xyzzy", "Installed: console"),
    ],
)
def test_an_unknown_exporter_has_a_fitting_remedy(healthy, name, remedy):
    """
    An exporter that is misspelt, combined with none, or to be installed each has its own remedy.
    """
    *_, finding = export.exporters(healthy({"OTEL_TRACES_EXPORTER": name}))

    assert finding.level is Level.PROBLEM
    assert finding.remedy.startswith(remedy)


def test_an_exporter_that_we_know_nothing_of_is_noted(healthy):
    """
    Where a third party's exporter sends to is not checked, and that is said.
    """
    assert levels(export.exporters(healthy({"OTEL_TRACES_EXPORTER": "zipkin"}))) == [Level.OK, Level.NOTE]


def test_without_a_configurator_no_exporter_is_talked_about(healthy):
    """
    Where nothing sets up a provider, exporters do not matter.
    """
    assert list(export.exporters(healthy(plugins={CONFIGURATORS: ()}))) == []


def test_a_configuration_file_decides(healthy, tmp_path):
    """
    With a configuration file exporters, sampler and limits of the environment do not count.
    """
    (tmp_path / "otel.yaml").write_text("file_format: '1.0'")
    here = healthy(
        {
            "OTEL_CONFIG_FILE": "otel.yaml",
            "OTEL_TRACES_EXPORTER": "xyzzy",
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "10",
        }
    )

    assert levels(export.exporters(here)) == [Level.NOTE]
    assert list(export.sampler(here)) == []
    assert list(export.limits(here)) == []


def test_a_configuration_file_that_cannot_be_read_is_a_problem(healthy):
    """
    A file that is not there, or nothing installed that reads it, makes the launcher give up.
    """
    environ = {"OTEL_CONFIG_FILE": "absent.yaml"}

    assert levels(export.exporters(healthy(environ))) == [Level.PROBLEM]
    finding = one(export.exporters(healthy(environ, reads_files=False)))
    assert finding.remedy.startswith("pip install opentelemetry-configuration")


def test_a_configuration_file_that_the_sdk_does_not_know_is_noted(healthy):
    """
    A variable for a configuration file that the installed SDK does not know is noted, and the environment decides.
    """
    findings = list(export.exporters(healthy({"OTEL_EXPERIMENTAL_CONFIG_FILE": "otel.yaml"})))

    assert levels(findings) == [Level.NOTE, Level.OK]


@pytest.mark.parametrize(
    ("name", "argument", "level"),
    [
        ("always_on", "", Level.OK),
        ("always_off", "", Level.PROBLEM),
        ("parentbased_always_off", "", Level.NOTE),
        ("traceidratio", "1", Level.OK),
        ("traceidratio", "0.1", Level.NOTE),
        ("traceidratio", "0", Level.PROBLEM),
        ("parentbased_traceidratio", "10%", Level.PROBLEM),
        ("parentbased_traceidratio", "nan", Level.PROBLEM),
        ("parentbased_traceidratio", "", Level.PROBLEM),
        ("always-off", "", Level.PROBLEM),
    ],
)
def test_what_the_sampler_lets_through(healthy, name, argument, level):
    """
    A sampler that lets nothing through, or is not understood, is a problem; one that lets a share through is noted.
    """
    here = healthy({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})

    assert levels(export.sampler(here)) == [level]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2000"}, []),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": ""}, []),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1999"}, ["OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES=1999"]),
        (
            {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "500", "OTEL_PYTHON_INTROSPECT_MAX_ATTRIBUTE_BYTES": "500"},
            [],
        ),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "20"}, ["Raise it to 2000"]),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "5"}, []),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "5", "OTEL_PYTHON_INTROSPECT_WATCHDOG_ALL_THREADS": "true"}, ["Raise it"]),
        ({"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "4"}, ["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=128"]),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "4"}, ["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT=128"]),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "4", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "64"}, []),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "-1"}, ["Correct it"]),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2k"}, ["Correct it"]),
    ],
)
def test_limits_that_cut_our_evidence(healthy, environ, expected):
    """
    A limit of the SDK that would cut a stack, or that the SDK refuses, is a problem with a remedy.
    """
    findings = list(export.limits(healthy(environ)))

    assert set(levels(findings)) <= {Level.PROBLEM}
    assert len(findings) == len(expected)
    assert all(finding.remedy.startswith(start) for finding, start in zip(findings, expected, strict=True))
