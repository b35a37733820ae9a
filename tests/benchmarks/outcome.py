"""What a bench is asked and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Self

PrintLine = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Records of the long history, new records a build, interleaved rounds, seconds, records of the topic, and the commit
    whose code is compared.
    """

    history: int
    records: int
    rounds: int
    seconds: int
    topic_records: int = 1_000_000
    before: str = ""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """A bench's Markdown, its figures for machines, and the limits that it missed."""

    text: str
    figures: dict[str, Any]
    missed: list[str] = field(default_factory=list)


Bench = Callable[[Options, PrintLine], BenchResult]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some measurements, and the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """At least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)])
