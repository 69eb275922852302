"""What a benchmark found, as a table for a reader and as plain data for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from benchmarks.pairing import Comparison

_HEAD: Final = ("", "", "median", "worst", "more", "+-", "ratio", "limit", "")
_WORDS: Final = (0, 1, len(_HEAD) - 1)
_ALWAYS: Final = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant in one case.

    Args:
        case: Under which circumstances; rows of one case stand together.
        variant: What was measured.
        median: Its absolute figure.
        more: What it costs beyond the base of its case; None for the base itself.
        ratio: The same as a ratio.
        spread: How far the differences scatter.
        worst: Its highest figure, where a single one matters.
        limit: What it may cost at most; None for what is no promise of ours.
        limited: Which of the figures the limit is for.
    """

    case: str
    variant: str
    median: float
    more: float | None = None
    ratio: float | None = None
    spread: float | None = None
    worst: float | None = None
    limit: float | None = None
    limited: Literal["median", "more", "ratio"] = "more"

    @property
    def holds(self) -> bool | None:
        """Whether the limit holds; None without one."""
        figure = getattr(self, self.limited)
        return None if self.limit is None or figure is None else bool(figure <= self.limit)


@dataclass(kw_only=True)
class Part:
    """All that one benchmark has found.

    Args:
        title: What was measured.
        unit: Of all its figures but the ratios.
        rows: The figures.
        notes: What a reader must know to judge them.
    """

    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(  # noqa: PLR0913 - a row has that many columns
        self,
        case: str,
        found: dict[str, Comparison],
        base: str,
        *,
        ours: str | None = None,
        limit: float | None = None,
        limited: Literal["median", "more", "ratio"] = "more",
        with_worst: bool = False,
    ) -> None:
        """Add a row for each variant of a comparison; *limit* is for those that are called *ours*, or begin so."""
        for variant, beside in found.items():
            is_base = variant == base
            self.rows.append(
                Row(
                    case=case,
                    variant=variant,
                    median=beside.median,
                    more=None if is_base else beside.more,
                    ratio=None if is_base else beside.ratio,
                    spread=None if is_base else beside.spread,
                    worst=beside.worst if with_worst else None,
                    limit=limit if ours is not None and variant.startswith(ours) else None,
                    limited=limited,
                )
            )

    def as_text(self) -> str:
        """The table and what is to be said of it."""
        lines: list[tuple[str, ...]] = [(*_HEAD[:2], f"median {self.unit}", *_HEAD[3:])]
        case = None
        for row in self.rows:
            lines.append(("" if row.case == case else row.case, row.variant, *_figures(row)))
            case = row.case
        # A column of which nothing is said is left out.
        said = [column for column in range(len(_HEAD)) if column in _ALWAYS or any(line[column] for line in lines[1:])]
        lines = [tuple(line[column] for column in said) for line in lines]
        widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
        table = [
            "  ".join(
                text.ljust(width) if column in _WORDS else text.rjust(width)
                for column, text, width in zip(said, line, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, "", *(f"  {line}" for line in table), *(f"  {note}" for note in self.notes), ""])

    def as_data(self) -> dict[str, Any]:
        """The same for a program."""
        rows = [{**asdict(row), "holds": row.holds} for row in self.rows]
        return {"title": self.title, "unit": self.unit, "rows": rows, "notes": self.notes}


def _figures(row: Row) -> tuple[str, ...]:
    return (
        _number(row.median),
        "" if row.worst is None else _number(row.worst),
        "" if row.more is None else _number(row.more, sign="+"),
        "" if row.spread is None else _number(row.spread),
        "" if row.ratio is None else f"{row.ratio:.3f}",
        "" if row.limit is None else f"{row.limit:g}",
        {None: "", True: "holds", False: "MISSED"}[row.holds],
    )


def _number(value: float, sign: str = "") -> str:
    if isinstance(value, int):
        return f"{value:{sign},d}"
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1_000 else 0  # noqa: PLR2004
    return f"{value:{sign},.{digits}f}"
