"""Any object as a short text: what it looks like, and that nobody's code runs for it."""

from __future__ import annotations

import ctypes
import datetime as dt
import decimal
import enum
import pathlib
import sys
import threading
import time
import types
import uuid
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from unittest import mock

import pytest
import wrapt
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_introspect import faults
from otel_introspect.engine.redaction import Redaction
from otel_introspect.engine.safe_repr import MAX_CHARACTERS, UNSHOWN, OutOfTimeError, Representer

PLENTY = 30.0


def show(value, seconds=PLENTY):
    return Representer(Redaction(), seconds).show("x", value)


class Order:
    def __init__(self, **given):
        vars(self).update(given)


Point = namedtuple("Point", ("across", "down"))  # noqa: PYI024 - the untyped one is what most people have


class Level(enum.IntEnum):
    HIGH = 3


class Slotted:
    __slots__ = ("amount", "unset")

    def __init__(self):
        self.amount = 5


def values():
    cycle: list = [1]
    cycle.append(cycle)
    return {
        "None": None,
        "True": True,
        "Ellipsis": ...,
        "12": 12,
        "<int of 332193 bits>": 10**100_000,
        "-1.5": -1.5,
        "nan": float("nan"),
        "1j": 1j,
        "'it'": "it",
        r"'\x1b[31m\n\x00\ud800'": "\x1b[31m\n\x00\ud800",
        r"'\u202e'": "\u202e",
        r"b'\x00\xff'": b"\x00\xff",
        "<bytearray b'ab'>": bytearray(b"ab"),
        "[1, 'a']": [1, "a"],
        "[1, <list: circular>]": cycle,
        "(1,)": (1,),
        "()": (),
        "{1}": {1},
        "<set {}>": type("set", (set,), {"__module__": "builtins"})(),
        "<frozenset {1}>": frozenset({1}),
        "{'a': 1}": {"a": 1},
        "<OrderedDict {'a': 1}>": OrderedDict(a=1),
        "<defaultdict {}>": defaultdict(list),
        "<Counter {'a': 2}>": Counter("aa"),
        "<deque [1]>": deque([1]),
        "[[[<list of 1>]]]": [[[[1]]]],
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... 90 more]": list(range(100)),
        f"<{__name__}.Point (across=1, down=2)>": Point(1, 2),
        f"<{__name__}.Order id=7, total=1.5>": Order(id=7, total=1.5, _private=1),
        f"[<{__name__}.Order object>]": [Order()],
        f"<{__name__}.Order lines=[<{__name__}.Order object>]>": Order(lines=[Order(id=1)]),
        f"<{__name__}.Slotted amount=5>": Slotted(),
        "<types.SimpleNamespace a=1>": types.SimpleNamespace(a=1),
        f"<class {__name__}.Order>": Order,
        "<function values>": values,
        "<builtin_function_or_method len>": len,
        "<method Order.__init__>": Order().__init__,
        "<module>": sys,
        "<ValueError ('no', 5)>": ValueError("no", 5),
        "<date 2024-02-03>": dt.date(2024, 2, 3),
        "<datetime 2024-02-03T04:05:06 datetime.timezone>": dt.datetime(2024, 2, 3, 4, 5, 6, tzinfo=dt.timezone.utc),
        "<timedelta 1 d 2.5 s>": dt.timedelta(1, 2.5),
        "Decimal('1.50')": decimal.Decimal("1.50"),
        "<Decimal of very many digits>": decimal.Decimal(10**4000 + 1),
        "<UUID 00000000000000000000000000000001>": uuid.UUID(int=1),
        f"<{pathlib.PosixPath.__module__}.PosixPath ['a']>": pathlib.PosixPath("a"),
    }


@pytest.mark.parametrize(("expected", "value"), values().items(), ids=map(str, range(len(values()))))
def test_how_it_looks(expected, value):
    """
    Built-in values look as in Python, all else says of which type it is and what is in it.
    """
    assert show(value) == expected


def test_no_query_set_is_counted():
    """
    A generator is named, and not advanced.
    """
    generator = (each for each in [1])

    assert show(generator).startswith("<generator test_no_query_set_is_counted.<locals>.<genexpr>>")
    assert next(generator) == 1


class TouchedError(BaseException):
    """The application's code has been run."""


touched: list[str] = []


def touch(*_args, **_kwargs):
    touched.append("")
    raise TouchedError


SPECIAL = """
__repr__ __str__ __bytes__ __format__ __len__ __iter__ __next__ __getitem__ __contains__ __bool__ __eq__ __hash__
__ne__ __lt__ __getattr__ __getattribute__ __dir__ __int__ __index__ __float__ __sizeof__ __reduce__ __fspath__
__array__ __length_hint__ __instancecheck__ __subclasscheck__ __call__ __reversed__ __missing__ keys items values
get bit_length isoformat
"""
HOSTILE = dict.fromkeys(SPECIAL.split(), touch)
PROPERTIES = {"__class__": property(touch), "__dict__": property(touch), "password": property(touch)}


class HostileMeta(type):
    """A metaclass of which nothing may be asked either."""

    __name__ = property(touch)
    __module__ = property(touch)
    __mro__ = property(touch)
    __dict__ = property(touch)
    __getattribute__ = __eq__ = __hash__ = __repr__ = __instancecheck__ = __subclasscheck__ = __len__ = touch


class ProxyLike:
    """As lazy proxies are: everything is handed on to what it would have to make first."""

    __slots__ = ("_make",)
    __class__ = property(touch)
    __dict__ = property(touch)
    __getattribute__ = __getattr__ = __repr__ = __len__ = __iter__ = touch


class Wrapped:
    """Of which nothing may be asked once its proxy has been made, which asks it a lot."""

    is_made = False
    __dict__ = property(lambda self: touch() if self.is_made else {})
    __class__ = property(lambda self: touch() if self.is_made else Wrapped)
    __len__ = __iter__ = __repr__ = touch


class RaisingSlot:
    class Descriptor:
        __get__ = __set__ = touch

    data = Descriptor()
    __dict__ = Descriptor()


def hostile():
    """Each made here: what its class forbids is what makes it hostile."""
    made = {}
    for base in (object, dict, list, tuple, set, frozenset, str, bytes, int, float, deque, OrderedDict, Exception):
        for kind, body in {"methods": HOSTILE, "properties": PROPERTIES, "both": {**HOSTILE, **PROPERTIES}}.items():
            made[f"{base.__name__} with {kind}"] = base.__new__(type("Hostile", (base,), dict(body)))
    made["metaclass"] = object.__new__(type.__new__(HostileMeta, "Meta", (), {"__slots__": ()}))
    made["metaclass of a dict"] = dict.__new__(type.__new__(HostileMeta, "Meta", (dict,), {}))
    made["class of a metaclass"] = type.__new__(HostileMeta, "Meta", (), {})
    made["proxy"] = object.__new__(ProxyLike)
    made["proxy in C"] = wrapt.ObjectProxy(Wrapped())
    made["derived proxy in C"] = type("Derived", (wrapt.ObjectProxy,), {})(Wrapped())
    Wrapped.is_made = True
    made["slot"] = RaisingSlot()
    made["__dict__ of one's own"] = Order()
    made["__dict__ of one's own"].__dict__ = type("Evil", (dict,), dict(HOSTILE))({"a": 1})
    made["name of a class"] = type("Evil", (), {})()
    type(made["name of a class"]).__module__ = property(touch)
    evil = type("EvilText", (str,), dict(HOSTILE))
    type(made["name of a class"]).__qualname__ = evil("Evil")
    made["half made"] = Slotted.__new__(Slotted)
    made["half made exception"] = UnicodeDecodeError.__new__(UnicodeDecodeError)
    made["half made id"] = uuid.UUID.__new__(uuid.UUID)
    made["half made path"] = pathlib.PosixPath.__new__(pathlib.PosixPath)
    made["mock"] = mock.MagicMock(side_effect=touch, __repr__=touch)
    made["weak reference"] = weakref.ref(Order)
    made["weak proxy of nothing"] = weakref.proxy(Order())
    made["user's dict"] = UserDict(a=1)
    made["ctypes"] = ctypes.c_int(5)
    made["ctypes structure"] = type("S", (ctypes.Structure,), {"_fields_": [("x", ctypes.c_int)]})()
    made["memory"] = memoryview(b"abc")
    made["memory"].release()
    made["zone"] = dt.datetime(2024, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {"utcoffset": touch, "__repr__": touch})())
    made["enumeration"] = Level.HIGH
    made["exception's arguments"] = ValueError(object.__new__(ProxyLike))
    made["item"] = {"a": object.__new__(ProxyLike), 1: [object.__new__(ProxyLike)]}
    made["fields"] = type("F", (tuple,), {"_fields": (evil("a"),)})((1,))
    made["deep"] = deep = []
    for _ in range(100_000):
        deep.append([])
        deep = deep[0]
    return made


MADE = hostile()


@pytest.mark.parametrize("name", MADE)
def test_nobody_s_code_runs(name):
    """
    Of no object is a method called, a property read, or its class or its class's class asked for anything.
    """
    value = MADE[name]
    touched.clear()
    began = time.perf_counter()
    shown = show(value)
    took = time.perf_counter() - began

    assert touched == []
    assert shown != UNSHOWN or name.startswith("half made")
    assert len(shown) <= MAX_CHARACTERS
    assert took < 0.15


def test_a_class_that_lies():
    """
    What an object says that its class is does not change what it is taken for.
    """

    class Lying:
        __class__ = dict

    assert show(Lying()) == f"<{__name__}.test_a_class_that_lies.<locals>.Lying object>"


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 64_000_000,
        lambda: "\N{SNOWMAN}" * 10_000_000,
        lambda: bytes(1_000_000_000),  # of zeros, which take up no memory until they are looked at
        lambda: bytearray(1_000_000_000),
        lambda: [0] * 8_000_000,
        lambda: type("Text", (str,), {})("x" * 64_000_000),
    ],
    ids=["text", "wide text", "bytes", "array of bytes", "list", "derived text"],
)
def test_size_does_not_matter(make):
    """
    Of what is huge the beginning is shown, and how much there is, as quickly as of anything else.
    """
    value = {"a": [make()]}
    began = time.thread_time()
    shown = show(value)

    assert time.thread_time() - began < 0.05
    assert len(shown) <= MAX_CHARACTERS


def test_holes_are_not_walked():
    """
    A dictionary or a set that was large, and is all holes at its beginning, is not gone through.
    """
    mapping, members = dict.fromkeys(range(2_000_000)), set(range(2_000_000))
    for each in range(1_999_990):
        del mapping[each]
        members.discard(each)
    began = time.thread_time()
    shown = show(mapping), show(members)

    assert time.thread_time() - began < 0.05
    assert shown == ("<dict of 10>", "<set of 10>")


def test_what_another_thread_changes():
    """
    Containers that grow and shrink meanwhile are shown as they are at some moment, or not at all; nothing is raised.
    """
    mapping, members, elements, stop = {0: 0}, {0}, [0], threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            mapping[number] = number
            members.add(number)
            elements.append(number)
            if number % 50 == 0:
                mapping.clear()
                members.clear()
                elements.clear()

    thread = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        shown = [show([mapping, members, elements, deque(elements[:5])]) for _ in range(2000)]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)

    assert all(text.startswith("[") for text in shown if text != UNSHOWN)
    assert shown.count(UNSHOWN) < 20


def test_time_that_is_over():
    """
    Between two steps the clock is looked at, and who asks is told that there is no time left.
    """
    now = 0.0

    def clock():
        nonlocal now
        now += 0.001
        return now

    representer = Representer(Redaction(), 0.01, clock)

    with pytest.raises(OutOfTimeError):
        representer.show("x", [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    with pytest.raises(OutOfTimeError):
        representer.show("x", 1)


def test_a_failure_costs_its_own_value_only(monkeypatch):
    """
    What can't be shown says so and is counted; memory and recursion that run out are no different.
    """
    from otel_introspect.engine import safe_repr

    for error in (MemoryError, RecursionError, RuntimeError("dictionary changed size during iteration")):
        monkeypatch.setattr(safe_repr, "_attributes_of", mock.Mock(side_effect=error))
        assert show(Order(a=1)) == UNSHOWN

    assert faults.counts["failed", "showing a local variable"] == 3


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
keys = st.none() | st.integers() | st.text() | st.binary() | st.tuples(st.text(), st.integers())
nested = st.recursive(
    scalars | st.datetimes() | st.decimals() | st.uuids(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.builds(Order, a=inner, b=inner)
    ),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(nested)
def test_anything_can_be_shown(value):
    """
    Any nesting of built-in values is one printable line within its bounds.
    """
    shown = show(value)

    assert len(shown) <= MAX_CHARACTERS
    assert shown.isprintable()
    assert shown != UNSHOWN
    shown.encode("utf-8")
