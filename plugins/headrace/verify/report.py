"""What a verification found, as values, as lines for people and as one JSON document."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict, Unpack

LISTED_MAX = 20  # findings of one check that are listed; the others are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: where, what was found, what was expected, what to do.

    offset is the first one that is wrong; None where no single offset is, as for a claim. topic: and its partition, of
    a dataset of several topics.
    """

    dataset: str
    check: str
    found: str
    expected: str
    remedy: str
    generation: int | None = None
    partition: int | None = None
    offset: int | None = None
    topic: str | None = None

    @property
    def where(self) -> str:
        """`jobs[1] offset 117 of generation 2`, or as much of it as is known."""
        subject = self.dataset if self.partition is None else f"{self.dataset}[{self.partition}]"
        subject += "" if self.topic is None else f" ({self.topic})"
        subject += "" if self.offset is None else f" offset {self.offset}"
        return subject + ("" if self.generation is None else f" of generation {self.generation}")

    @property
    def order(self) -> tuple[bool, int, int, int]:
        """By generation, partition and offset; what has none comes last."""
        return self.offset is None, self.generation or 0, self.partition or 0, self.offset or 0

    def document(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("topic", None)}

    def line(self) -> str:
        """The finding in one line."""
        return f"{self.where}: {self.check}: found {self.found}, expected {self.expected}; {self.remedy}"


class Coordinates(TypedDict, total=False):
    """As much as is known of where a finding is."""

    generation: int | None
    partition: int | None
    offset: int | None


@dataclass(slots=True)
class DatasetReport:
    """What was compared of one dataset, and what did not tie.

    checks: the names of those that ran. notes: worth knowing, not wrong. counts: what was compared. topics: of a
    dataset of several, by generation and partition. error: why not all of it could be compared; None where all was.
    """

    dataset: str
    checks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    hidden: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    error: str | None = None
    topics: Mapping[tuple[int, int], str] = field(default_factory=dict)
    _listed: Counter[str] = field(default_factory=Counter, repr=False)

    @property
    def is_clean(self) -> bool:
        """Everything was compared and tied."""
        return not self.findings and self.error is None

    def add(
        self,
        check: str,
        *,
        found: str,
        expected: str,
        remedy: str,
        **where: Unpack[Coordinates],
    ) -> None:
        """Take a finding in; beyond LISTED_MAX of a check it is only counted."""
        self._listed[check] += 1
        if self._listed[check] > LISTED_MAX:
            self.hidden[check] += 1
            return
        partition = where.get("partition")
        self.findings.append(
            Finding(
                dataset=self.dataset,
                check=check,
                found=" ".join(found.split()),
                expected=" ".join(expected.split()),
                remedy=remedy,
                topic=self.topics.get((where.get("generation") or 0, -1 if partition is None else partition)),
                **where,
            )
        )

    def hide(self, check: str, total: int, listed: int) -> None:
        """Count findings that a query left out."""
        if total > listed:
            self.hidden[check] += total - listed

    def lines(self) -> Iterator[str]:
        """Notes, then one line per finding, the first wrong offset first."""
        yield from (f"{self.dataset}: note: {note}" for note in self.notes)
        yield from (finding.line() for finding in sorted(self.findings, key=lambda finding: finding.order))
        yield from (f"{self.dataset}: {check}: {count} more like these" for check, count in self.hidden.items())
        if self.error is not None:
            yield f"{self.dataset}: not verified to the end: {self.error}"
        if self.is_clean:
            yield f"{self.dataset}: clean: {self.summary()}"

    def summary(self) -> str:
        """What was compared, in one line."""
        parts = [", ".join(self.ranges)] if self.ranges else ["nothing was ingested yet"]
        return "; ".join(parts + [f"{count} {what}" for what, count in self.counts.items()])

    def document(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return {
            "dataset": self.dataset,
            "clean": self.is_clean,
            "checks": self.checks,
            "ranges": self.ranges,
            "counts": self.counts,
            "notes": self.notes,
            "findings_not_listed": dict(self.hidden),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """The reports of all datasets that were asked for."""

    reports: list[DatasetReport]
    deep: bool

    @property
    def is_clean(self) -> bool:
        """Every report is."""
        return all(report.is_clean for report in self.reports)

    @property
    def findings(self) -> list[Finding]:
        """Those of all reports; of each the first wrong offset first."""
        return [finding for report in self.reports for finding in sorted(report.findings, key=lambda f: f.order)]

    @property
    def errors(self) -> list[str]:
        """Why datasets could not be verified to the end."""
        return [report.error for report in self.reports if report.error is not None]

    def lines(self) -> Iterator[str]:
        """Everything, for a terminal or a log; the last line is the summary."""
        for report in self.reports:
            yield from report.lines()
        yield self.summary()

    def summary(self) -> str:
        """How it ended, in one line."""
        total = len(self.findings) + sum(sum(report.hidden.values()) for report in self.reports)
        depth = "ledger, rows, claims and records" if self.deep else "ledger, rows and claims"
        if total:
            return f"verify: {total} finding{'s' if total > 1 else ''}; the first is {self.findings[0].where}"
        if self.errors:
            return f"verify: no findings, but not everything could be compared: {self.errors[0]}"
        return f"verify: clean: {depth} of {len(self.reports)} dataset{'s' if len(self.reports) != 1 else ''} tie"

    def document(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "clean": self.is_clean,
            "deep": self.deep,
            "summary": self.summary(),
            "datasets": [report.document() for report in self.reports],
            "findings": [finding.document() for finding in self.findings],
        }
