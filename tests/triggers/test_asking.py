"""What a request asks for, and what the answer says."""

from __future__ import annotations

import subprocess
import sys
import timeit
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.triggers.asking import Asked, asked, is_loopback, profiled_headers, refused_headers


@pytest.mark.parametrize(
    ("query", "token", "rest"),
    [
        ("__introspect__", "", ""),
        ("__introspect__=", "", ""),
        ("__geordi__", "", ""),
        ("__geordi__=", "", ""),
        ("__introspect__=v1.x", "v1.x", ""),
        ("a=1&__geordi__&b=2", "", "a=1&b=2"),
        ("__introspect__=t&a=1", "t", "a=1"),
        ("a=1&__introspect__=t", "t", "a=1"),
        ("__introspect__=t&__geordi__=u", "t", ""),
        ("__geordi__=u&__introspect__=t", "u", ""),
        ("__introspect__&a&__introspect__=t", "t", "a"),
        ("__introspect__=a=b", "a=b", ""),
        ("%5F_introspect_%5f=t", "t", ""),
        ("%5f%5f%69%6e%74%72%6F%73%70%65%63%74%5f%5f=%74", "t", ""),
        ("__%67eordi__", "", ""),
        ("__introspec%74__=t", "t", ""),
        ("__introspec%74__=t&c=%5B", "t", "c=%5B"),
        ("__introspect__=%FF%20+", "\xff +", ""),
        ("&&a=%zz&__introspect__&é=ü&&", "", "&&a=%zz&é=ü&&"),
    ],
)
def test_the_parameter_asks_and_goes(query, token, rest):
    """
    Either parameter asks, with a token or without, however its name is escaped; the rest of the query is as it was,
    byte for byte.
    """
    assert asked(query, None) == Asked(token, rest)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "a=1&b=2",
        "introspect=1",
        "_introspect_=1",
        "x__introspect__=1",
        "__introspect__x=1",
        "__INTROSPECT__=1",
        "a=__introspect__",
        "a=%5F_introspect__",
        "a=1;__introspect__=x",
        "+__introspect__=1",
        "%255F_introspect__=1",
        "q=%5B%5D&r=%61",
        "%",
    ],
)
def test_what_only_looks_like_it_asks_nothing(query):
    """
    Another name, another case, a value, a name that is escaped twice: none of them asks.
    """
    assert asked(query, None) is None


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_what_is_left_asks_nothing_any_more(text):
    """
    What the application gets has no parameter of ours, whatever the query was, and all others in their order.
    """
    found = asked(f"{text}&__introspect__&{text}", None)

    assert found.token == "" or "__" in text or "%" in text
    assert asked(found.query, None) is None
    kept = parse_qsl(found.query, keep_blank_values=True, encoding="latin-1")
    every = parse_qsl(f"{text}&{text}", keep_blank_values=True, encoding="latin-1")
    assert kept == [pair for pair in every if pair[0] not in ("__introspect__", "__geordi__")]


def test_the_header_asks():
    """
    A header asks without a parameter, and leaves the query alone.
    """
    assert asked("a=%5B1", "v1.x") == Asked("v1.x", "a=%5B1")
    assert asked("", "") == Asked("", "")


def test_the_header_is_before_the_parameter():
    """
    A token in the header counts, not the one in the query, which goes all the same; an empty header has none.
    """
    assert asked("__introspect__=p&a=1", "h") == Asked("h", "a=1")
    assert asked("__introspect__=p&a=1", "") == Asked("p", "a=1")


@pytest.mark.parametrize("query", ["", "page=2&sort=price", "q=caf%C3%A9%20au%20lait&page=2", "x=" + "y" * 200])
def test_asking_nothing_costs_nothing(query):
    """
    A request that asks nothing is told so in well under a microsecond.
    """
    best = min(timeit.repeat(lambda: asked(query, None), number=2000, repeat=20)) / 2000

    assert best < 1e-6


LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]
ELSEWHERE = [
    "10.0.0.1",
    "192.168.1.1",
    "203.0.113.9",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "0.0.0.0",
    "::",
    "fe80::1",
    "::1%10.0.0.1",
]
NOBODY = [
    "",
    "localhost",
    "unix:",
    "unknown",
    "127.0.0.1.evil.example",
    "127.1",
    "0x7f.1",
    "2130706433",
    "\u0661",
    "1" * 999,
]


@pytest.mark.parametrize("address", LOOPBACK)
def test_this_machine_is_loopback(address):
    """
    Any address of this machine's own loop is loopback, also as IPv6 spells an IPv4 one.
    """
    assert is_loopback(address, [])


@pytest.mark.parametrize("address", [*ELSEWHERE, *NOBODY, "127.0.0.1 "])
def test_everybody_else_is_not(address):
    """
    Every other address, and whatever is no address, is not loopback.
    """
    assert not is_loopback(address, [])


@pytest.mark.parametrize(
    "value",
    [
        *LOOPBACK,
        "127.0.0.1, ::1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
        "for=127.0.0.1",
        'For="[::1]:4711";proto=https;by=10.0.0.1',
        "proto=http;for=127.0.0.1 , for=127.0.0.2",
        'for="127.0.0.1:1"',
    ],
)
def test_a_proxy_that_names_this_machine(value):
    """
    A forwarding header that names only this machine leaves it loopback, in each of the forms that there are.
    """
    assert is_loopback("127.0.0.1", [value])
    assert not is_loopback("10.0.0.1", [value])


@pytest.mark.parametrize(
    "value",
    [
        *ELSEWHERE,
        *NOBODY,
        "10.0.0.1, 127.0.0.1",
        "127.0.0.1, 10.0.0.1",
        "127.0.0.1,",
        "10.0.0.1:80",
        "[2001:db8::1]:80",
        "[::1]80",
        "[::1]:8o",
        "[::1",
        "127.0.0.1:",
        "127.0.0.1:\u0661",
        "::1:80",
        "for=10.0.0.1",
        "for=127.0.0.1;for=10.0.0.1",
        "for=_hidden",
        "by=127.0.0.1",
        "for=",
        'for="',
        'for="127.0.0.1',
        "for=127.0.0.1, for=10.0.0.1",
        "=127.0.0.1",
    ],
)
def test_a_proxy_that_names_somebody_else(value):
    """
    A forwarding header with another address, or with anything that is not understood, makes the request not loopback.
    """
    assert not is_loopback("127.0.0.1", [value])
    assert not is_loopback("127.0.0.1", ["127.0.0.1", value])


@given(address=st.text(max_size=30), forwarded=st.lists(st.text('127.0.1:[]=";,for by%', max_size=30), max_size=3))
def test_no_address_breaks_it(address, forwarded):
    """
    Whatever stands in the place of an address, the answer is yes or no.
    """
    assert is_loopback(address, forwarded) in (True, False)
    assert is_loopback("127.0.0.1", forwarded) in (True, False)


def test_the_answer_says_where_the_profile_is():
    """
    The answer to a profiled request names trace and profile, for a program and in the browser's own timing panel.
    """
    profile_id = "0123456789abcdef0123456789abcdef"

    assert profiled_headers(0xAF7, profile_id) == [
        ("X-Introspect", f"profiled; trace_id=00000000000000000000000000000af7; profile_id={profile_id}"),
        ("Server-Timing", f'introspect;desc="profile {profile_id}"'),
    ]


def test_the_answer_says_why_there_is_none():
    """
    The answer to a request that was refused gives the reason.
    """
    assert refused_headers("expired") == [("X-Introspect", "refused; reason=expired")]


def test_looking_loads_nothing_heavy():
    """
    To look whether a request asks, what verifies tokens is not loaded.
    """
    program = """
import sys
from otel_introspect.triggers.asking import asked
asked("a=1", None)
print({"hmac", "otel_introspect.triggers.tokens"} & set(sys.modules) or "none of them")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout == "none of them\n"
