"""``exempt``: what can be marked."""

from __future__ import annotations

import functools
from itertools import chain

import pytest

from otel_introspect import exempt
from otel_introspect.errors import ConfigurationError
from otel_introspect.exemption import is_exempt


def view(request):
    return request


async def async_view(request):
    return request


class Callable:
    def __call__(self, request):
        return request

    def method(self, request):
        return request


def fresh(function):
    """The like of *function*, so that marking it does not mark it for the next test."""

    @functools.wraps(function)
    def like_it(request):
        return function(request)

    return like_it


@pytest.mark.parametrize(
    "make",
    [
        lambda: fresh(view),
        lambda: fresh(async_view),
        lambda: functools.partial(view, None),
        Callable,
        lambda: type("AView", (), {}),
    ],
    ids=["function", "coroutine function", "partial", "callable object", "class"],
)
def test_marking(make):
    """
    ``exempt`` gives back the very view that it was given, marked.
    """
    unmarked, marked = make(), make()

    assert exempt(marked) is marked
    assert is_exempt(marked)
    assert not is_exempt(unmarked)


def test_marking_twice():
    """
    Marking again changes nothing.
    """
    assert is_exempt(exempt(exempt(fresh(view))))


def test_a_decorator_on_top_that_keeps_attributes_keeps_the_mark():
    """
    ``functools.wraps`` carries the mark outwards; a wrapper without it does not.
    """
    marked = exempt(fresh(view))

    assert is_exempt(fresh(marked))
    assert not is_exempt(lambda request: [marked(request)])


@pytest.mark.parametrize("view", [Callable().method, len, object(), None, 5, chain])
def test_what_cannot_be_marked(view):
    """
    A bound method or a builtin is refused, with what to do instead.
    """
    with pytest.raises(ConfigurationError, match="apply it to the function"):
        exempt(view)
    assert not is_exempt(view)


def test_only_true_is_a_mark():
    """
    An object that has every attribute, such as a mock, is not exempt for that.
    """

    class Anything:
        def __getattr__(self, name):
            return object()

    assert not is_exempt(Anything())
