"""How long each benchmark may take: a short look for CI, a long one for figures to quote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Bounds, in rounds or seconds, of every benchmark.

    Args:
        span_rounds: Paired rounds for each number of open spans.
        dogslow_open: The most open spans with which dogslow's timer is tried; it takes longer with each.
        idle_seconds: How long idle processes are watched.
        launches: How often a program is launched, each way.
        listings: How often its imports are listed.
        generations: How often servers are started anew, as two processes of one program differ by a percent or two.
        server_rounds: Paired rounds for each generation of servers.
        request_rounds: Paired rounds for each generation of processes that serve themselves.
        limited_request_rounds: Paired rounds for each generation of processes whose requests have a limit.
        profiled_rounds: Paired rounds for each generation of processes whose requests are profiled.
        block_rounds: Paired rounds for each way to enter and leave a block that has a limit.
        interruptions: How often each kind of work is interrupted, each way.
        queue_interruptions: How often a loop that uses a queue is interrupted.
        loop_interruptions: How often each loop is interrupted that is hardly more than a jump.
    """

    span_rounds: int
    dogslow_open: int
    idle_seconds: int
    launches: int
    listings: int
    generations: int
    server_rounds: int
    request_rounds: int
    limited_request_rounds: int
    profiled_rounds: int
    block_rounds: int
    interruptions: int
    queue_interruptions: int
    loop_interruptions: int


QUICK: Final = Effort(
    span_rounds=60,
    dogslow_open=1_000,
    idle_seconds=10,
    launches=5,
    listings=3,
    generations=1,
    server_rounds=20,
    request_rounds=40,
    limited_request_rounds=60,
    profiled_rounds=10,
    block_rounds=40,
    interruptions=5,
    queue_interruptions=300,
    loop_interruptions=20,
)
FULL: Final = Effort(
    span_rounds=300,
    dogslow_open=10_000,
    idle_seconds=15,
    launches=40,
    listings=7,
    generations=3,
    server_rounds=60,
    request_rounds=120,
    limited_request_rounds=300,
    profiled_rounds=40,
    block_rounds=300,
    interruptions=40,
    queue_interruptions=3_000,
    loop_interruptions=200,
)
