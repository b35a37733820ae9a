"""What a follower builds next: models that read staging each time, models that read models a share at a time.

While a model is built that reads models, newer records wait. So a build has only as many of these as take SHARE_S, in
turns; when nothing arrives, all that are due are built at once.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.marts.build import BuildResult
from headrace.marts.readers import Readers

SHARE_S = 0.25  # of a build's time for models that read models
FURTHER_S = 2.0  # minimum between builds of all that are due, when nothing arrives


@dataclass(frozen=True, slots=True)
class Selection:
    """What one build is about.

    select: for dbt; None for everything. datasets: those with batches to build. complete: of these datasets all models
    are built. further: the models that read models.
    """

    select: list[str] | None
    datasets: frozenset[str] = frozenset()
    complete: frozenset[str] = frozenset()
    further: tuple[str, ...] = ()


class Schedule:
    """The datasets and models of which something is to be built. Not thread-safe."""

    def __init__(self) -> None:
        self._is_whole = True  # the first build is of everything
        self._has_whole_failed = False
        self._datasets: set[str] = set()
        self._due: dict[str, None] = {}  # models that read models; the next one first
        self._further_at = 0.0
        self._readers: Mapping[str, Readers] = {}
        self._seconds: dict[str, float] = {}
        self._broken: set[str] = set()  # datasets of which a model failed

    def add(self, dataset: str) -> None:
        """Add a dataset that has batches to build; one of which a model failed waits for `recheck`."""
        if dataset not in self._broken:
            self._datasets.add(dataset)

    def recheck(self, unclaimed: Iterable[str]) -> None:
        """Add datasets whatever the last build of them did, and what failed."""
        self._datasets |= set(unclaimed) | self._broken
        self._is_whole |= self._has_whole_failed

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the models that are due are built without new records; None if none is due."""
        return max(self._further_at - time.monotonic(), 0.0) if self._due else None

    def build_due(self) -> None:
        """Build the models that are due next, even if the last ones were just built."""
        self._further_at = 0.0

    def next(self) -> Selection | None:
        """What to build now; None for nothing."""
        if self._is_whole:
            return Selection(None, frozenset(self._datasets))
        if not self._datasets:
            if not self._due or self.seconds_left:
                return None
            return Selection(list(self._due), further=tuple(self._due))
        complete = {name for name in self._datasets if name in self._broken or name not in self._readers}
        first: set[str] = set()
        for name in self._datasets - complete:
            first |= set(self._readers[name].first)
            self._due |= dict.fromkeys(model for model in self._readers[name].further if model not in self._due)
        share = self._share()
        select = [f"source:staging.{name}+,resource_type:model" for name in sorted(complete)]
        select += [*sorted(first), *share]
        if not select:  # no model reads them
            self._datasets.clear()
            return None
        return Selection(select, frozenset(self._datasets), frozenset(complete), tuple(share))

    def _share(self) -> list[str]:
        """The first of the models that are due, at least one, for SHARE_S; one that was never built takes all of it."""
        share: list[str] = []
        seconds = 0.0
        for model in self._due:
            seconds += self._seconds.get(model, SHARE_S)
            if share and seconds > SHARE_S:
                break
            share.append(model)
        return share

    def built(self, selection: Selection, result: BuildResult) -> bool:
        """Note that a build succeeded; return whether no model that failed is left."""
        if selection.select is None:
            self._is_whole = self._has_whole_failed = False
            self._due.clear()
            self._broken.clear()
        elif not selection.datasets:
            self._further_at = time.monotonic() + FURTHER_S
        self._broken -= selection.complete
        self._done(selection)
        for nodes in result.passes:
            self._seconds |= {node.model: node.seconds for node in nodes if node.kind == "model"}
        self._readers = result.readers or self._readers
        return not self._broken and not self._has_whole_failed

    def failed(self, selection: Selection) -> None:
        """Note that models of a build failed: their datasets are built as a whole after the next recheck."""
        if selection.select is None:
            self._is_whole, self._has_whole_failed = False, True
        behind = {name for name, of in self._readers.items() if set(of.further) & set(selection.further)}
        self._broken |= selection.datasets | behind
        self._done(selection)
        for name in self._broken & self._readers.keys():
            for model in self._readers[name].further:
                self._due.pop(model, None)

    def _done(self, selection: Selection) -> None:
        self._datasets -= selection.datasets
        for model in selection.further:
            self._due.pop(model, None)
