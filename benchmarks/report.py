"""What a benchmark found, as a table for a reader and as plain data for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from benchmarks.pairing import Comparison

_HEAD: Final = ("", "", "median", "more", "+-", "ratio", "limit", "")


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
        limit: What it may cost at most; None for what is no promise of ours.
        limited: Which of the figures the limit is for.
    """

    case: str
    variant: str
    median: float
    more: float | None = None
    ratio: float | None = None
    spread: float | None = None
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
        limited: Literal["more", "ratio"] = "more",
    ) -> None:
        """Add a row for each variant of a comparison; *limit* is for the one called *ours*."""
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
                    limit=limit if variant == ours else None,
                    limited=limited,
                )
            )

    def as_text(self) -> str:
        """The table and what is to be said of it."""
        lines = [(*_HEAD[:2], f"median {self.unit}", *_HEAD[3:])]
        case = None
        for row in self.rows:
            lines.append(("" if row.case == case else row.case, row.variant, *_figures(row)))
            case = row.case
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
        table = [
            "  ".join(
                text.ljust(width) if column < 2 or column == len(_HEAD) - 1 else text.rjust(width)  # noqa: PLR2004
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, "", *(f"  {line}" for line in table), *(f"  {note}" for note in self.notes), ""])

    def as_data(self) -> dict[str, Any]:
        """The same for a program."""
        rows = [{**asdict(row), "holds": row.holds} for row in self.rows]
        return {"title": self.title, "unit": self.unit, "rows": rows, "notes": self.notes}


def _figures(row: Row) -> tuple[str, str, str, str, str, str]:
    return (
        _number(row.median),
        "" if row.more is None else _number(row.more, sign="+"),
        "" if row.spread is None else _number(row.spread),
        "" if row.ratio is None else f"{row.ratio:.3f}",
        "" if row.limit is None else f"{row.limit:g}",
        {None: "", True: "holds", False: "MISSED"}[row.holds],
    )


def _number(value: float, sign: str = "") -> str:
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1_000 else 0  # noqa: PLR2004
    return f"{value:{sign},.{digits}f}"
