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
    """

    span_rounds: int
    dogslow_open: int
    idle_seconds: int
    launches: int
    listings: int
    generations: int
    server_rounds: int
    request_rounds: int


QUICK: Final = Effort(
    span_rounds=60,
    dogslow_open=1_000,
    idle_seconds=10,
    launches=5,
    listings=3,
    generations=1,
    server_rounds=20,
    request_rounds=40,
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
)
