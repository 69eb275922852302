"""What is hidden of local variables, and what is not."""

from __future__ import annotations

import time
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redaction_corpus import HARMLESS, LOOKS, NAMES, SECRET, SHAPES

from otel_introspect.engine.redaction import REDACTED, Redaction
from otel_introspect.engine.safe_repr import UNSHOWN, Representer

PLENTY = 30.0


def show(value, name="x", more=()):
    return Representer(Redaction(more), PLENTY).show(name, value)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_a_secret_s_name_is_hidden(name):
    """
    By its name a secret is known before its value is looked at, in any case and however its words are joined.
    """
    assert show(SECRET, name) == REDACTED


@pytest.mark.parametrize("shape", SHAPES)
def test_no_secret_of_the_corpus_is_seen(shape):
    """
    Wherever a secret's name stands beside it, in containers, objects and texts, the secret is not in what is shown.
    """
    shown = {name: show(SHAPES[shape](name, SECRET)) for name in NAMES}

    assert {
        name: text for name, text in shown.items() if "hunter2" in text or "h\\x00u" in text or text == UNSHOWN
    } == {}


WRAPPINGS = {
    "list": lambda value: [value],
    "dict": lambda value: {"a": value},
    "set of what can be in one": lambda value: {1: (value, value)},
    "object": lambda value: types.SimpleNamespace(a=value),
    "exception": KeyError,
    "twice": lambda value: {"a": [value, {"b": value}]},
    "in the middle": lambda value: ["x" * 20, value, "y" * 20],
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_nesting_does_not_uncover_it(wrapping):
    """
    The same holds for each of them within something else.
    """
    names = ("password", "X-Api-Key", "sid", "accessToken")
    made = {(name, shape): WRAPPINGS[wrapping](SHAPES[shape](name, SECRET)) for name in names for shape in SHAPES}
    shown = {key: show(value) for key, value in made.items()}

    assert {key: text for key, text in shown.items() if "hunter2" in text or text == UNSHOWN} == {}


@pytest.mark.parametrize("looks", LOOKS)
def test_what_looks_like_a_secret_is_hidden(looks):
    """
    Some are known without a name: where they stand in a URL, what a header begins with, how keys and tokens look.
    """
    assert "hunter2" not in show(LOOKS[looks])
    assert "hunter2" not in show([{"a": LOOKS[looks]}])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_resembles_one_is_shown(name):
    """
    A name that has the letters of a secret's within another word does not hide anything.
    """
    assert show("shown", name) == "'shown'"


@pytest.mark.parametrize(
    "number", ["4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"]
)
def test_a_card_s_number_is_hidden(number):
    """
    A payment card's number is known by its check digit, as a text and as an integer.
    """
    digits = number.replace(" ", "").replace("-", "")

    assert number[-4:] not in show(f"paid with {number}.")
    assert show(int(digits)) == REDACTED


def test_other_numbers_are_shown():
    """
    Times, ids and numbers with another check digit are not taken for a card's.
    """
    assert show(1_700_000_000_123_456_789) == "1700000000123456789"
    assert show(4111111111111112) == "4111111111111112"
    assert show("2024-01-02 03:04:05") == "'2024-01-02 03:04:05'"
    assert show("http://localhost:8080") == "'http://localhost:8080'"
    assert show("http://localhost:8080/a?b=c") == "'http://localhost:8080/a?b=c'"


@pytest.mark.parametrize("name", ["tax_id", "taxId", "TAX-ID", "customer.taxid", "my_tax_ids"])
def test_words_of_one_s_own(name):
    """
    A word of the user's hides every name that it is in, whatever its case and its separators.
    """
    assert show(SECRET, name) == f"'{SECRET}'"
    assert show(SECRET, name, more=["Tax-Id", ""]) == REDACTED
    assert SECRET not in show({"a": f"{name}={SECRET}"}, more=["tax_id"])


def test_what_stands_before_a_secret_is_shown():
    """
    Only the secret and what follows it goes from a text.
    """
    assert show("GET /x?a=1&token=abc&b=2") == f"'GET /x?a=1&token={REDACTED}'"
    assert show({"user": "bob", "password": "x"}) == f"{{'user': 'bob', 'password': {REDACTED}}}"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=1000))
def test_any_text_is_gone_through_quickly(text):
    """
    There is no text of that length which takes long, or on which it fails.
    """
    began = time.thread_time()
    Redaction().without_secrets(text)

    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize(
    "piece", ["a", "a=", "'", ":", "://", "a:", "://a:", "--a ", "eyJ", "4 ", "4-", "[", "%3", " ", "_.-"]
)
def test_no_pattern_runs_away(piece):
    """
    A text that repeats what a pattern begins with is gone through as quickly.
    """
    text = (piece * 1000)[:1000]
    began = time.thread_time()
    Redaction().without_secrets(text)

    assert time.thread_time() - began < 0.1
