"""Paired measurement: what is compared is measured in turns, so that a busy machine slows all of it alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Measure = Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """One variant beside the base of its comparison, over all rounds.

    Args:
        median: Of its own figures.
        more: Median of the differences to the base, taken round by round.
        ratio: Median of the ratios to the base, likewise.
        spread: Half the distance between the quartiles of those differences.
        worst: Of its own figures.
    """

    median: float
    more: float
    ratio: float
    spread: float
    worst: float


def in_turns(variants: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Measure each variant once a round, in an order that moves on by one each round."""
    names = list(variants)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for each in range(rounds):
        start = each % len(names)
        for name in names[start:] + names[:start]:
            figures[name].append(variants[name]())
    return figures


def compare(figures: Mapping[str, Sequence[float]], base: str) -> dict[str, Comparison]:
    """Each variant beside *base*; the figures at one index belong to one round."""
    return {name: _beside(of_variant, figures[base]) for name, of_variant in figures.items()}


def _beside(figures: Sequence[float], base: Sequence[float]) -> Comparison:
    differences = [one - other for one, other in zip(figures, base, strict=True)]
    low, _, high = statistics.quantiles(differences, n=4)
    return Comparison(
        median=statistics.median(figures),
        more=statistics.median(differences),
        ratio=statistics.median(one / other for one, other in zip(figures, base, strict=True) if other),
        spread=(high - low) / 2,
        worst=max(figures),
    )
