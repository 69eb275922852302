"""A child that is forked within a block has no limit, says so, and may have limits of its own."""

from __future__ import annotations

import pytest
from interruptions import run_script, said, script

FORK = """
def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            say("child", work())
        except BaseException as error:
            say("child", type(error).__name__)
        finally:
            sys.stdout.flush()
            os._exit(0)
    return child

def joined(child):
    os.waitpid(child, 0)
"""


def forked(text, *, tracing=False):
    """What the processes of a script said, each after its name, and the log of them all."""
    lines, log = run_script(script(FORK, tracing=tracing) + script(text), python=["-W", "ignore::DeprecationWarning"])
    found = {}
    for who, what in lines:
        found.setdefault(who, []).append(what)
    return found, log


def test_a_fork_within_a_block():
    """
    The child outlives the deadline of a block that it was forked in, and logs that it has no limit; the parent has one.
    """
    found, log = forked(
        """
        def parent():
            with timeout(0.3, Expired):
                child = in_child(lambda: time.sleep(0.8) or "not interrupted")
                try:
                    time.sleep(20)
                finally:
                    joined(child)
        say("parent", outcome(parent))
        """
    )

    assert found == {"child": ["not interrupted"], "parent": ["Expired"]}
    assert said(log)


def test_a_child_that_leaves_the_block():
    """
    A child may go on through the end of the block that it was forked in.
    """
    found, _ = forked(
        """
        child = 0
        def both():
            global child
            with timeout(0.3, Expired):
                child = os.fork()
                time.sleep(0.6)
                return "left the block"
        result = outcome(both)
        after = outcome(lambda: time.sleep(0.3))
        say("parent" if child else "child", [result, after])
        os.waitpid(child, 0) if child else None
        """
    )

    assert found == {"child": [["left the block", "done"]], "parent": [["Expired", "done"]]}


def test_a_fork_without_a_block_says_nothing():
    """
    Where no limit is lost nothing is logged.
    """
    _, log = forked(
        """
        with timeout(5, Expired): pass
        joined(in_child(lambda: time.sleep(0.1)))
        """
    )

    assert said(log) == []


@pytest.mark.parametrize("around", ["timeout(5, KeyError)", "open(os.devnull)"], ids=["in a block", "in none"])
def test_blocks_of_the_child_s_own(around):
    """
    Blocks that are opened in the child work, nested ones too, whether or not it was forked in one.
    """
    found, _ = forked(
        f"""
        def single():
            with timeout(0.1, Expired): time.sleep(20)
        def inner_first():
            with timeout(0.3, Outer):
                try:
                    with timeout(0.1, Inner): time.sleep(20)
                except Inner:
                    time.sleep(20)
        def inner_longer():
            with timeout(0.1, Outer), timeout(5, Inner): time.sleep(20)
        def inner_done():
            with timeout(0.1, Outer):
                with timeout(0.05, Inner): pass
                time.sleep(20)
        def in_time():
            with timeout(0.1, Expired): pass
            time.sleep(0.3)
        def child():
            return [outcome(each) for each in (single, inner_first, inner_longer, inner_done, in_time)]
        with {around}:
            joined(in_child(child))
        """
    )

    assert found == {"child": [["Expired", "Outer", "Outer", "Outer", "done"]]}


def test_an_inherited_block_does_not_fire_instead_of_the_child_s_own():
    """
    When the child's own limits are due it is they that fire, though the one that it was forked in was due before them.
    """
    found, _ = forked(
        """
        def work():
            with timeout(0.1, Expired): time.sleep(20)
        def child():
            time.sleep(0.5)
            return [outcome(work), outcome(work)]
        def parent():
            global forked
            with timeout(0.3, Outer):
                forked = in_child(child)
                time.sleep(20)
        say("parent", outcome(parent))
        joined(forked)
        """
    )

    assert found == {"child": [["Expired", "Expired"]], "parent": ["Outer"]}


def test_a_child_of_a_child():
    """
    A grandchild may have limits of its own, too.
    """
    found, _ = forked(
        """
        def work():
            with timeout(0.1, Expired): time.sleep(20)
        def child():
            with timeout(5, Outer):
                joined(in_child(lambda: outcome(work)))
            return outcome(work)
        with timeout(5, Outer):
            joined(in_child(child))
        say("parent", outcome(work))
        """
    )

    assert found == {"child": ["Expired", "Expired"], "parent": ["Expired"]}


def test_a_fork_from_a_thread():
    """
    In a child that a thread has forked, that thread is the main one, and limits work in it.
    """
    found, _ = forked(
        """
        def work():
            with timeout(0.1, Expired): time.sleep(20)
        def thread():
            with timeout(5, Outer):
                joined(in_child(lambda: outcome(work)))
        with timeout(5, Outer):
            running = threading.Thread(target=thread)
            running.start()
            running.join()
        """
    )

    assert found == {"child": ["Expired"]}


def test_a_fork_while_a_thread_has_a_limit():
    """
    What other threads of the parent were allowed does not concern the child.
    """
    found, _ = forked(
        """
        def spin():
            end = time.monotonic() + 1
            while time.monotonic() < end: pass
        def limited():
            with timeout(0.3, Expired): spin()
        results = []
        running = threading.Thread(target=lambda: results.append(outcome(limited)))
        running.start()
        joined(in_child(lambda: outcome(spin)))
        running.join()
        say("parent", results)
        """
    )

    assert found == {"child": ["done"], "parent": [["Expired"]]}


def test_a_fork_within_a_task():
    """
    A child that is forked in a task runs its own loop with limits of its own.
    """
    found, _ = forked(
        """
        import asyncio
        async def limited():
            async with timeout(0.1, Expired): await asyncio.sleep(20)
        def child():
            asyncio.events._set_running_loop(None)
            return outcome(lambda: asyncio.run(limited()))
        async def main():
            async with timeout(5, Outer):
                joined(in_child(child))
                await limited()
        say("parent", outcome(lambda: asyncio.run(main())))
        """
    )

    assert found == {"child": ["Expired"], "parent": ["Expired"]}


def test_multiprocessing_s_workers():
    """
    Work that a forked pool does can be limited in its workers, within a limit of the parent's.
    """
    found, _ = forked(
        """
        import multiprocessing
        def work(number):
            def limited():
                with timeout(0.1, Expired): time.sleep(20 if number % 2 else 0)
            return outcome(limited)
        with timeout(15, Outer), multiprocessing.get_context("fork").Pool(2) as pool:
            say("parent", pool.map(work, range(4)))
        """
    )

    assert found == {"parent": [["done", "Expired", "done", "Expired"]]}


def test_the_child_writes_no_evidence_of_a_limit_that_it_does_not_have():
    """
    A child that outlives its parent's deadline does not mark the span as interrupted.
    """
    found, _ = forked(
        """
        def child():
            time.sleep(0.4)
            return "left"
        span = tracer.start_span("work")
        from opentelemetry import trace
        with trace.use_span(span):
            try:
                with timeout(0.2, Expired):
                    forked = os.fork()
                    time.sleep(0.5)
            except Expired:
                pass
        span.end()
        say("parent" if forked else "child", span.attributes.get("otel_introspect.interrupted"))
        os.waitpid(forked, 0) if forked else None
        """,
        tracing=True,
    )

    assert found == {"child": [None], "parent": [True]}
