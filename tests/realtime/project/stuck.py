"""Ways to be stuck for longer than a server waits, each in a function of its own."""

from __future__ import annotations

import re
import socket
import threading
import time

from opentelemetry import trace

SECONDS = 30


def stuck_in_sleep():
    time.sleep(SECONDS)


def stuck_in_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=SECONDS)


def stuck_in_a_regex():
    re.match(r"(a+)+$", "a" * 40 + "b")


def stuck_in_a_sum():
    """Lets go of the GIL for nobody, and of no POSIX signal's handler either."""
    sum(range(10**11))


def stuck_in_recv():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(SECONDS)
        ours.recv(1)


def stuck_in_the_span():
    """Holds what whoever writes to the span needs."""
    with trace.get_current_span()._lock:
        time.sleep(SECONDS)


WAYS = {
    each.__name__: each
    for each in (
        stuck_in_sleep,
        stuck_in_a_lock,
        stuck_in_a_regex,
        stuck_in_a_sum,
        stuck_in_recv,
        stuck_in_the_span,
    )
}
