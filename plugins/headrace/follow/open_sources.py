"""The sources that a follower keeps open for its drains: the last ones used."""

from collections import OrderedDict
from contextlib import suppress

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.ingest.opening import open_source
from headrace.sources.base import Source

OPEN_MAX = 32  # each has a client of its own, with a connection and a thread


class OpenSources:
    """Sources by dataset, opened when first asked for; of more than OPEN_MAX the least recently used is closed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sources: OrderedDict[str, Source] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def get(self, dataset: Dataset) -> Source:
        """The source of a dataset; raises the errors of opening it."""
        if dataset.name not in self._sources:
            self._sources[dataset.name] = open_source(self._deployment, dataset)
        self._sources.move_to_end(dataset.name)
        while len(self._sources) > OPEN_MAX:
            self.close(next(iter(self._sources)))
        return self._sources[dataset.name]

    def close(self, name: str) -> None:
        """Close the source of a dataset, if it is open."""
        if (source := self._sources.pop(name, None)) is not None:
            with suppress(HeadraceError):
                source.close()

    def close_all(self) -> None:
        """Close all of them."""
        for name in list(self._sources):
            self.close(name)
