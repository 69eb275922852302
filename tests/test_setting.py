"""One setting: what each kind takes, and what becomes of the rest."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.errors import ConfigurationError
from otel_introspect.setting import (
    Settings,
    any_of,
    boolean,
    dotted_path,
    integer,
    one_of,
    problem,
    ratio,
    read,
    setting,
    text,
    url_patterns,
    variables_of,
)


class Sample(Settings):
    """One of each kind."""

    number: int = setting("N", integer(1, 10), default=5)
    switch: bool = setting("S", boolean, default=False)
    key: str = setting("K", text, default="")


HUGE = 10**5000


class Unprintable:
    def __repr__(self) -> str:
        raise OSError


def shown(value: object) -> str:
    return "huge" if value is HUGE else ascii(value)[:20]


PARSERS = {
    "integer": integer(0),
    "ratio": ratio,
    "boolean": boolean,
    "one_of": one_of("first", "all"),
    "any_of": any_of("span", "log"),
    "any_of_alone": any_of("slow", "tail", alone="none"),
    "text": text,
    "dotted_path": dotted_path,
    "url_patterns": url_patterns,
}


@pytest.mark.parametrize(
    ("parser", "value", "result"),
    [
        ("integer", "0", 0),
        ("integer", "+250", 250),
        ("integer", "-0", 0),
        ("integer", "007", 7),
        ("integer", 250, 250),
        ("integer", "2147483647", 2**31 - 1),
        ("ratio", "0", 0.0),
        ("ratio", "1", 1.0),
        ("ratio", "0.25", 0.25),
        ("ratio", ".5", 0.5),
        ("ratio", "1e-3", 0.001),
        ("ratio", 1, 1.0),
        ("ratio", 0.5, 0.5),
        ("boolean", "true", True),
        ("boolean", "TRUE", True),
        ("boolean", "False", False),
        ("boolean", True, True),
        ("one_of", "First", "first"),
        ("any_of", "log", ("log",)),
        ("any_of", " log , SPAN,,log", ("span", "log")),
        ("any_of", ["log", "span"], ("span", "log")),
        ("any_of_alone", "none", ()),
        ("any_of_alone", [], ()),
        ("any_of_alone", "tail", ("tail",)),
        ("text", "anything", "anything"),
        ("dotted_path", "shop.access.is_staff", "shop.access.is_staff"),
        ("dotted_path", "shop.access:is_staff", "shop.access:is_staff"),
        ("dotted_path", "", ""),
        ("url_patterns", "health, ^/static/", "health, ^/static/"),
    ],
)
def test_what_is_understood(parser, value, result):
    """
    Text and typed values become the setting's value, of the setting's type.
    """
    parsed = PARSERS[parser](value)

    assert parsed == result
    assert type(parsed) is type(result)


@pytest.mark.parametrize(
    ("parser", "value"),
    [
        ("integer", "-1"),
        ("integer", "1_000"),
        ("integer", "1e3"),
        ("integer", "1.0"),
        ("integer", "0x10"),
        ("integer", "1s"),
        ("integer", "--1"),
        ("integer", "1\n"),
        ("integer", "٣٤٥"),
        ("integer", "１２３"),  # noqa: RUF001 - the point of it
        ("integer", "²"),
        ("integer", "2147483648"),
        ("integer", "9" * 5000),
        ("integer", HUGE),
        ("integer", True),
        ("integer", 5.0),
        ("integer", None),
        ("ratio", "nan"),
        ("ratio", "inf"),
        ("ratio", "-inf"),
        ("ratio", "-0.1"),
        ("ratio", "1.0000001"),
        ("ratio", "0_1"),
        ("ratio", "\u0660"),
        ("ratio", "0,5"),
        ("ratio", "9" * 5000),
        ("ratio", HUGE),
        ("ratio", math.nan),
        ("ratio", True),
        ("ratio", [0.5]),
        ("boolean", "1"),
        ("boolean", "yes"),
        ("boolean", "on"),
        ("boolean", 1),
        ("one_of", "second"),
        ("one_of", "first,all"),
        ("one_of", 1),
        ("any_of", ""),
        ("any_of", ","),
        ("any_of", "span,logs"),
        ("any_of", ["span", 1]),
        ("any_of", [["span"]]),
        ("any_of", 7),
        ("any_of_alone", "none,slow"),
        ("text", 5),
        ("dotted_path", "is_staff"),
        ("dotted_path", "shop..is_staff"),
        ("dotted_path", "shop.1st"),
        ("dotted_path", "shop.views.is_staff()"),
        ("dotted_path", "shop.views.is_staff\n"),
        ("url_patterns", "("),
        ("url_patterns", "health,[a"),
        ("url_patterns", "(" * 5000),
        ("url_patterns", "a{99999999999999999999}"),
        ("url_patterns", "[[a]"),  # only a warning for re, but warnings are errors here
        ("url_patterns", "(?P<a>x)(?P<a>y)"),
        ("url_patterns", ["health"]),
    ],
    ids=shown,
)
def test_what_is_not_understood(parser, value):
    """
    Everything else is a ``ValueError`` and nothing but that, whatever it is.
    """
    with pytest.raises(ValueError, match=r"^(not|neither) "):
        PARSERS[parser](value)


hostile = st.one_of(
    st.text(),
    st.text(alphabet="0123456789+-_.eE٣１ \t\n"),  # noqa: RUF001 - other scripts' digits
    st.text(alphabet="()[]{}?*+|\\^$,-:<>PiLux1"),
    st.integers(),
    st.floats(),
    st.binary(),
    st.none(),
    st.lists(st.one_of(st.text(), st.integers())),
    st.dictionaries(st.text(), st.text()),
)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", PARSERS)
@given(value=hostile)
def test_hostile_values(kind, value):
    """
    No value makes a parser raise anything but ``ValueError``, and what comes out goes in again.
    """
    try:
        parsed = PARSERS[kind](value)
    except ValueError:
        return

    assert PARSERS[kind](parsed) == parsed


@given(value=st.one_of(hostile, st.just(HUGE)))
def test_reading_never_raises(value):
    """
    Whatever a configuration file holds, there is a settings object, and it holds valid values.
    """
    sample = read(Sample, {"N": "7"}, {"number": value, "switch": value, "key": value})

    assert 1 <= sample.number <= 10
    assert isinstance(sample.switch, bool)
    assert isinstance(sample.key, str)


@pytest.mark.parametrize("value", [HUGE, Unprintable()], ids=["5,001 digits", "unprintable"])
def test_values_that_cannot_be_printed(value, caplog):
    """
    A value whose ``repr`` raises is warned about like any other; in code it is a ``ConfigurationError``.
    """
    assert read(Sample, {}, {"number": value}) == Sample()
    assert len(caplog.records) == 1

    with pytest.raises(ConfigurationError, match=r"^number="):
        Sample(number=value)


def test_long_values_are_shortened_in_the_warning(caplog):
    """
    A long value is shown by its beginning.
    """
    read(Sample, {"N": "9" * 5000})

    (record,) = caplog.records
    assert "N='999" in record.getMessage()
    assert len(record.getMessage()) < 200


def test_a_secret_of_the_wrong_type_is_not_shown(caplog):
    """
    Neither the log nor the error has the key in it, even where it is refused: YAML makes a number of digits.
    """
    read(Sample, {}, {"key": 271828})
    with pytest.raises(ConfigurationError) as caught:
        Sample(key=271828)

    assert "key=<set> is not a text" in caplog.text
    assert "271828" not in caplog.text
    assert "271828" not in str(caught.value)


def test_the_secret_is_not_printed():
    """
    ``repr`` says only whether there is a key.
    """
    assert "key=<set>" in repr(Sample(key="hunter2"))
    assert "hunter2" not in repr(Sample(key="hunter2"))
    assert "key=''" in repr(Sample())


def test_overrides_come_first_and_fall_back(caplog):
    """
    Override before environment before default; one that is not understood gives way to the next, with one warning.
    """
    environ = {"N": "7"}

    assert read(Sample, environ, {"number": 9}).number == 9
    assert read(Sample, environ, {"number": None}).number == 7
    assert read(Sample, {}, {}).number == 5
    assert caplog.records == []

    assert read(Sample, environ, {"number": "nine"}).number == 7
    assert len(caplog.records) == 1


def test_both_bad_both_told(caplog):
    """
    If neither the override nor the environment is understood each has its warning and the default is used.
    """
    assert read(Sample, {"N": "11"}, {"number": 0}).number == 5
    assert [record.getMessage().split("=")[0] for record in caplog.records] == ["number", "N"]


@pytest.mark.parametrize("raw", ["", " ", "\t\n"])
def test_empty_is_unset(raw, caplog):
    """
    An empty variable, or one of blanks, is as if it were not there.
    """
    assert read(Sample, {"N": raw, "S": raw, "K": raw}) == Sample()
    assert problem(Sample, "N", raw) is None
    assert caplog.records == []


def test_blanks_around_a_value_are_dropped():
    """
    A value with blanks around it is the value.
    """
    assert read(Sample, {"N": " 7 ", "S": "true\n"}) == Sample(number=7, switch=True)


def test_read_looks_at_the_environment_of_now(monkeypatch):
    """
    Without an environment given it is the process's own, at the time of the call.
    """
    monkeypatch.setenv("N", "3")
    assert read(Sample).number == 3

    monkeypatch.setenv("N", "4")
    assert read(Sample).number == 4


def test_problem_says_what_is_wrong():
    """
    ``problem`` names what was expected, and None where there is nothing to say.
    """
    assert problem(Sample, "N", "11") == "not a whole number of 1 at least and 10 at most"
    assert problem(Sample, "N", "10") is None
    assert problem(Sample, "ELSE", "11") is None


def test_code_is_held_to_account():
    """
    A wrong value in code raises, with the field, the value and what was expected; it is a ``ValueError`` too.
    """
    with pytest.raises(ConfigurationError, match=r"^number=11 is not a whole number of 1 at least and 10 at most$"):
        Sample(number=11)
    assert issubclass(ConfigurationError, ValueError)


def test_unknown_fields_are_named():
    """
    A field that there is not is a ``TypeError`` that says which there are.
    """
    with pytest.raises(TypeError, match="Sample has no field numbr; it has number, switch, key"):
        Sample(numbr=5)


def test_settings_are_frozen():
    """
    Nothing can be assigned or deleted, as with any frozen dataclass.
    """
    sample = Sample()

    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.number = 6
    with pytest.raises(dataclasses.FrozenInstanceError):
        del sample.number
    assert sample == Sample()


def test_settings_are_values():
    """
    Equal if they say the same, hashable, copied, pickled and replaced like any dataclass.
    """
    sample = Sample(number=6, key="k")

    assert sample == Sample(number="6", key="k")
    assert hash(sample) == hash(Sample(number=6, key="k"))
    assert sample != Sample(number=7, key="k")
    assert sample != (6, False, "k")
    assert copy.deepcopy(sample) == sample
    assert pickle.loads(pickle.dumps(sample)) == sample
    assert dataclasses.replace(sample, number=7) == Sample(number=7, key="k")
    assert dataclasses.asdict(sample) == {"number": 6, "switch": False, "key": "k"}


def test_variables_of():
    """
    A settings class knows the variable of each field.
    """
    assert variables_of(Sample) == {"number": "N", "switch": "S", "key": "K"}
