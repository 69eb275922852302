"""All settings: default, good value, bad value, by environment, by option and in code."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect import config as configuration
from otel_introspect.config import (
    FAULTHANDLER_IS_SAFER,
    INTROSPECT_SETTINGS,
    PREFIX,
    SETTINGS,
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
from otel_introspect.errors import ConfigurationError
from otel_introspect.setting import names_template, variables_of

BAD_NUMBERS = ("-1", "1s", "1_000", "1e3", "1.5", "٣", "9" * 5000, "NaN", "one")
OFF_THEN_ON = (False, "True", True, ("1", "yes", "tru", "true,false"))


class Row(NamedTuple):
    """What there is to know of one variable; *bad* is empty where any text will do."""

    config: type
    field: str
    variable: str
    default: object
    raw: str
    value: object
    bad: tuple[str, ...]


ROWS = [
    Row(EvidenceConfig, "events", "EVENTS", ("span",), "log,span", ("span", "log"), ("spans", "span;log", ",")),
    Row(EvidenceConfig, "events_bridge", "EVENTS_BRIDGE", *OFF_THEN_ON),
    Row(
        EvidenceConfig,
        "excluded_urls",
        "EXCLUDED_URLS",
        "",
        "health,^/x$",
        "health,^/x$",
        ("(", "a,[b", "(" * 5000, "a{99999999999999999999}", "((a)", "(?P<n>(?P<n>b))"),
    ),
    Row(EvidenceConfig, "max_attribute_bytes", "MAX_ATTRIBUTE_BYTES", 2000, "64", 64, ("63", "0", *BAD_NUMBERS)),
    Row(WatchdogConfig, "threshold", "WATCHDOG_THRESHOLD", 1000, "250", 250, BAD_NUMBERS),
    Row(WatchdogConfig, "max_snapshots", "WATCHDOG_MAX_SNAPSHOTS", 5, "32", 32, ("0", "33", *BAD_NUMBERS)),
    Row(
        WatchdogConfig,
        "observers",
        "WATCHDOG_OBSERVERS",
        ("thread", "signal", "faulthandler") if FAULTHANDLER_IS_SAFER else ("thread", "signal"),
        "faulthandler,thread",
        ("thread", "faulthandler"),
        ("none", "threads", "thread signal"),
    ),
    Row(WatchdogConfig, "all_threads", "WATCHDOG_ALL_THREADS", *OFF_THEN_ON),
    Row(WatchdogConfig, "locals", "WATCHDOG_LOCALS", *OFF_THEN_ON),
    Row(WatchdogConfig, "locals_redact", "WATCHDOG_LOCALS_REDACT", "", " iban, Tax-Id ", "iban,Tax-Id", ("a,-,b", "*")),
    Row(WatchdogConfig, "checkpoint", "WATCHDOG_CHECKPOINT", "first", "All", "all", ("last", "first,all", "0")),
    Row(
        ProfilerConfig,
        "triggers",
        "PROFILER_TRIGGERS",
        ("slow", "request"),
        "none",
        (),
        ("none,slow", "always", "slow|tail"),
    ),
    Row(ProfilerConfig, "interval", "PROFILER_INTERVAL", 10, "1", 1, ("0", *BAD_NUMBERS)),
    Row(ProfilerConfig, "engine", "PROFILER_ENGINE", "sampler", "pyinstrument", "pyinstrument", ("cprofile", "1")),
    Row(ProfilerConfig, "key", "PROFILER_KEY", "", "s3cret", "s3cret", ()),
    Row(ProfilerConfig, "allow", "PROFILER_ALLOW", "", "a.b:c", "a.b:c", ("c", "a b.c", ".a", "a.b()")),
    Row(
        ProfilerConfig,
        "ratio",
        "PROFILER_RATIO",
        0.0,
        "0.5",
        0.5,
        ("NaN", "inf", "-inf", "-0.1", "1.1", "50%", "0_1", "\u0660", "half"),
    ),
    Row(ProfilerConfig, "store", "PROFILER_STORE", "", "s3://profiles", "s3://profiles", ()),
    Row(
        ProfilerConfig,
        "store_max_count",
        "PROFILER_STORE_MAX_COUNT",
        1000,
        "1",
        1,
        ("0", *BAD_NUMBERS),
    ),
    Row(
        ProfilerConfig,
        "store_max_bytes",
        "PROFILER_STORE_MAX_BYTES",
        256 * 1024 * 1024,
        "1",
        1,
        ("0", *BAD_NUMBERS),
    ),
    Row(ProfilerConfig, "max_duration", "PROFILER_MAX_DURATION", 30_000, "1", 1, ("0", *BAD_NUMBERS)),
    Row(TimeoutConfig, "timeout", "TIMEOUT", 0, "20000", 20_000, BAD_NUMBERS),
    Row(
        TimeoutConfig,
        "view",
        "TIMEOUT_VIEW",
        "",
        "errors/slow.html",
        "errors/slow.html",
        ("late", "shop/views.late", "errors//slow.html", "/errors/slow.html", "slow page.html", "html", ".html"),
    ),
    Row(TimeoutConfig, "max_deferral", "TIMEOUT_MAX_DEFERRAL", 1000, "0", 0, BAD_NUMBERS),
    Row(TimeoutConfig, "disabled", "TIMEOUTS_DISABLED", *OFF_THEN_ON),
    Row(RecorderConfig, "directory", "RECORDER_DIR", "", "none", "none", ()),
    Row(
        EmailConfig,
        "to",
        "EMAIL_TO",
        "",
        "root, a.b+c@shop.example,",
        "root,a.b+c@shop.example",
        ("a@b@c", "A <a@b>", "a@b\r\nBcc: c@d", "@b"),
    ),
    Row(
        EmailConfig,
        "sender",
        "EMAIL_FROM",
        "",
        "Web <web@shop.example>",
        "Web <web@shop.example>",
        ("Web <web", "<>", "a@b\r\nBcc: c@d"),
    ),
    Row(EmailConfig, "host", "EMAIL_HOST", "", "mail.shop.example", "mail.shop.example", ()),
    Row(EmailConfig, "port", "EMAIL_PORT", 0, "2525", 2525, ("65536", *BAD_NUMBERS)),
    Row(EmailConfig, "user", "EMAIL_USER", "", "web", "web", ()),
    Row(EmailConfig, "password", "EMAIL_PASSWORD", "", "s3cret", "s3cret", ()),
    Row(EmailConfig, "tls", "EMAIL_TLS", "none", "STARTTLS", "starttls", ("ssl", "true")),
    Row(EmailConfig, "timeout", "EMAIL_TIMEOUT", 10_000, "500", 500, ("0", *BAD_NUMBERS)),
    Row(EmailConfig, "max_per_hour", "EMAIL_MAX_PER_HOUR", 20, "1", 1, ("0", *BAD_NUMBERS)),
    Row(EmailConfig, "subject_prefix", "EMAIL_SUBJECT_PREFIX", "[slow]", "[shop]", "[shop]", ()),
    Row(
        EmailConfig,
        "link",
        "EMAIL_LINK",
        "",
        "https://jaeger/trace/{trace_id}?uiFind={span_id}",
        "https://jaeger/trace/{trace_id}?uiFind={span_id}",
        ("https://jaeger/trace/", "{trace_id}", "javascript:{trace_id}", "http://x/ {trace_id}"),
    ),
    Row(ReportsConfig, "directory", "REPORTS_DIR", "", "/var/lib/slow", "/var/lib/slow", ()),
    Row(ReportsConfig, "max_count", "REPORTS_MAX_COUNT", 1000, "1", 1, ("0", *BAD_NUMBERS)),
    Row(ReportsConfig, "max_bytes", "REPORTS_MAX_BYTES", 64 * 1024 * 1024, "1000", 1000, ("0", *BAD_NUMBERS)),
]
BAD = [(row, raw) for row in ROWS for raw in row.bad]


def by_name(row: Row) -> str:
    return row.variable


def shown(value: object) -> str:
    return value.variable if isinstance(value, Row) else str(value)[:20]


every_row = pytest.mark.parametrize("row", ROWS, ids=by_name)
every_bad_value = pytest.mark.parametrize(("row", "raw"), BAD, ids=shown)


def everything(environ, options=None):
    """All settings, the exporters' own too, which are no options of ``introspect``: they are made with theirs."""
    own = [
        config.from_env(
            environ, {name: (options or {}).get(option_of(each)) for name, each in variables_of(config).items()}
        )
        for config in SETTINGS
        if config not in INTROSPECT_SETTINGS
    ]
    return (*IntrospectConfig.from_env(environ, options), *own)


def value_of(row: Row, settings: tuple[object, ...]) -> object:
    (config,) = (each for each in settings if type(each) is row.config)
    return getattr(config, row.field)


def test_the_table_here_is_complete():
    """
    Every field of every settings class has its row in this file, with its variable.
    """
    expected = {(config, *pair) for config in SETTINGS for pair in variables_of(config).items()}

    assert {(row.config, row.field, PREFIX + row.variable) for row in ROWS} == expected
    assert len(ROWS) == 40


@every_row
def test_default(row, caplog):
    """
    Without a variable, and with an empty one, the setting has the documented default, in silence.
    """
    for environ in ({}, {PREFIX + row.variable: ""}, {PREFIX + row.variable: "  "}):
        assert getattr(row.config.from_env(environ), row.field) == row.default
    assert getattr(row.config(), row.field) == row.default
    assert caplog.records == []


@every_row
def test_good_value(row, caplog):
    """
    A good value is taken from the environment, as an option, as an override and in code, and means the same.
    """
    name = PREFIX + row.variable

    assert getattr(row.config.from_env({name: row.raw}), row.field) == row.value
    assert getattr(row.config.from_env({}, {row.field: row.raw}), row.field) == row.value
    assert getattr(row.config.from_env({}, {row.field: row.value}), row.field) == row.value
    assert getattr(row.config(**{row.field: row.value}), row.field) == row.value
    assert value_of(row, everything({name: row.raw})) == row.value
    assert value_of(row, everything({}, {option_of(name): row.raw})) == row.value
    assert caplog.records == []


@every_bad_value
def test_bad_value(row, raw, caplog):
    """
    A bad value is warned about exactly once, by its variable's name, and the default is used; so at the second read.
    """
    name = PREFIX + row.variable

    for _ in range(2):
        assert getattr(row.config.from_env({name: raw}), row.field) == row.default
        assert everything({name: raw}) == everything({})

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{name}=")
    assert record.getMessage().endswith(f"It is ignored; the default is {row.default!r}.")


@every_bad_value
def test_bad_override_falls_back_to_the_environment(row, raw, caplog):
    """
    An override that is not understood is warned about once, and the environment's value is used.
    """
    assert getattr(row.config.from_env({PREFIX + row.variable: row.raw}, {row.field: raw}), row.field) == row.value
    assert len(caplog.records) == 1


@every_bad_value
def test_bad_value_in_code(row, raw):
    """
    In code the same value raises ``ConfigurationError``.
    """
    with pytest.raises(ConfigurationError, match=f"^{row.field}="):
        row.config(**{row.field: raw})


@every_row
def test_option_comes_before_the_environment(row, caplog):
    """
    An option by its own name goes before the variable; None means that there is none.
    """
    name = PREFIX + row.variable
    environ = {name: row.raw}
    other = row.default if row.default != row.value else row.raw

    assert value_of(row, everything(environ, {option_of(name): other})) == other
    assert value_of(row, everything(environ, {option_of(name): None})) == row.value
    assert caplog.records == []


@every_row
@given(raw=st.text())
def test_hostile_text(row, raw):
    """
    No text in a variable stops a service from starting; what is not understood is the default.
    """
    read = everything({PREFIX + row.variable: raw})

    assert value_of(row, read) == row.default or raw.strip()


def test_every_variable_bad_at_once(caplog):
    """
    One warning for each bad variable, and all defaults.
    """
    environ = {PREFIX + row.variable: row.bad[0] for row in ROWS if row.bad}

    assert everything(environ) == everything({})
    assert len(caplog.records) == len(environ)


def test_general_excluded_urls():
    """
    OpenTelemetry's own variable for excluded URLs serves where ours is not set.
    """
    general, own = "OTEL_PYTHON_EXCLUDED_URLS", PREFIX + "EXCLUDED_URLS"

    assert EvidenceConfig.from_env({general: "health"}).excluded_urls == "health"
    assert EvidenceConfig.from_env({general: "health", own: ""}).excluded_urls == "health"
    assert EvidenceConfig.from_env({general: "health", own: "admin"}).excluded_urls == "admin"
    assert EvidenceConfig.from_env({general: "health"}, {"excluded_urls": "code"}).excluded_urls == "code"


def test_the_environment_is_read_when_asked(monkeypatch):
    """
    Without one given, it is the process's environment at the time of the call.
    """
    monkeypatch.setenv(PREFIX + "WATCHDOG_THRESHOLD", "250")
    assert IntrospectConfig.from_env().watchdog.threshold == 250

    monkeypatch.setenv(PREFIX + "WATCHDOG_THRESHOLD", "300")
    assert WatchdogConfig.from_env().threshold == 300


def test_the_environment_is_left_alone():
    """
    Reading does not write to the mapping that it reads.
    """
    environ = {"OTEL_PYTHON_EXCLUDED_URLS": "health", PREFIX + "EVENTS": "bad"}
    before = dict(environ)

    IntrospectConfig.from_env(environ)

    assert environ == before


@pytest.mark.parametrize("config", SETTINGS)
def test_frozen(config):
    """
    Each settings class is a frozen dataclass.
    """
    settings = config()
    assert dataclasses.is_dataclass(settings)

    for each in dataclasses.fields(settings):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, each.name, None)


def test_the_key_is_not_printed():
    """
    Neither the profiler's settings nor all settings together print the key.
    """
    settings = IntrospectConfig.from_env({PREFIX + "PROFILER_KEY": "hunter2"})

    assert settings.profiler.key == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "key=<set>" in repr(settings)


def test_option_of():
    """
    An option is the variable without the prefix, in lower case.
    """
    assert option_of(PREFIX + "PROFILER_MAX_DURATION") == "profiler_max_duration"
    assert len({option_of(PREFIX + row.variable) for row in ROWS}) == len(ROWS)


def test_introspect_options():
    """
    A configuration file's options: one dataclass, one key for each setting, all None, made only once.
    """
    options = introspect_options()

    assert introspect_options() is options
    assert dataclasses.asdict(options()) == {
        option_of(PREFIX + row.variable): None for row in ROWS if row.config in INTROSPECT_SETTINGS
    }
    assert options(watchdog_threshold=250).watchdog_threshold == 250
    assert IntrospectConfig.from_env({}, dataclasses.asdict(options(watchdog_threshold=250))).watchdog.threshold == 250
    with pytest.raises(TypeError):
        options(watchdog_treshold=250)


@pytest.mark.parametrize("value", ["shop.views.late", "shop.views:late", "late.html", "errors/too-slow.v2.j2"])
def test_who_answers_an_interrupted_request(value):
    """
    It is a callable, said as everywhere by its dotted path, or a template, told by its suffix.
    """
    assert TimeoutConfig(view=value).view == value
    assert names_template(value) is value.endswith((".html", ".j2"))


def test_config_of_all_has_one_of_each():
    """
    ``IntrospectConfig`` holds each settings class once, in the same order.
    """
    assert tuple(type(each) for each in IntrospectConfig()) == INTROSPECT_SETTINGS
    assert configuration.PREFIX == "OTEL_PYTHON_INTROSPECT_"
