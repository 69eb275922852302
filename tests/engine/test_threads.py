"""The other threads, for a reader."""

from __future__ import annotations

import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from otel_introspect.engine.stacks import Capture
from otel_introspect.engine.threads import OtherThreads, ThreadGroup, other_threads, thread_name


def group(*names: str, depth: int = 3) -> ThreadGroup:
    return ThreadGroup(names, Capture(((sys._getframe().f_code, 0),) * depth))


@given(
    sizes=st.lists(st.integers(1, 9), max_size=30),
    depth=st.integers(0, 60),
    name=st.text(max_size=40),
    room=st.integers(64, 2000),
)
def test_text_never_is_longer_than_it_may_be(sizes, depth, name, room):
    """
    However many groups, names and frames there are, the text keeps to its bytes.
    """
    groups = tuple(group(*[name] * size, depth=depth) for size in sizes)

    text = OtherThreads(sum(sizes), groups).text(room)

    assert len(text.encode("utf-8", "surrogatepass")) <= room


def test_groups_that_do_not_fit_are_counted():
    """
    What there is no room for is said, not silently left out.
    """
    text = OtherThreads(40, tuple(group(f"pool-{n}", depth=20) for n in range(40))).text(1000)

    assert text.splitlines()[-1].endswith("more groups]")


def test_long_lists_of_names_are_shortened():
    """
    Of a hundred threads at one place a few are named.
    """
    text = OtherThreads(100, (group(*[f"w{n}" for n in range(100)]),)).text(1000)

    assert text.splitlines()[0] == "100 threads: w0, w1, w2, w3, w4, ..."


def test_the_shown_thread_and_our_own_are_left_out():
    """
    What the snapshot shows, and the thread that takes it, are not among the others.
    """
    frame = sys._getframe()
    here = threading.get_ident()

    others = other_threads({here: frame, 1: frame, 2: frame}, shown=1)

    assert others.total == 1
    assert others.groups[0].names == ("thread 2",)


def test_the_name_of_an_unknown_thread_is_empty():
    """
    Asking for a name neither fails for a thread that ``threading`` does not know, nor registers it.
    """
    before = threading.active_count()

    assert thread_name(1) == ""
    assert thread_name(threading.get_ident()) == threading.current_thread().name
    assert threading.active_count() == before
