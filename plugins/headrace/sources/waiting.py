"""Waiting at the sources of many datasets at once: what they wait for, and the protocol of waiters."""

import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from headrace.origin import Origin
from headrace.sources.base import SourcePosition


@dataclass(frozen=True, slots=True)
class Awaited:
    """What a dataset waits for: something to read at or after one of these positions.

    origins: of a source of several topics, where each partition is.
    """

    source: str
    positions: Mapping[int, SourcePosition]
    origins: Mapping[int, Origin] = field(default_factory=dict)

    def places(self) -> dict[tuple[str, int], SourcePosition]:
        """The positions by the name of the topic or stream, and its partition."""
        found: dict[tuple[str, int], SourcePosition] = {}
        for number, position in self.positions.items():
            origin = self.origins.get(number)
            found[(origin.topic, origin.partition) if origin else (self.source, number)] = position
        return found


class Waiter(Protocol):
    """Waits with one client; used by one thread."""

    def wait_for(self, awaited: Mapping[str, Awaited], seconds: float) -> Set[str]:
        """The datasets for which something may be readable; empty if nothing came in time.

        It is only a hint. A dataset is also returned if its source answers with an error: its drain meets it. Raises
        the errors of `Source.wait` if all of them fail together.
        """

    def close(self) -> None:
        """Close the client."""


class Armed:
    """What the datasets wait for; filled by one thread, awaited by another."""

    def __init__(self) -> None:
        self._awaited: Mapping[str, Awaited] = {}
        self._changed = threading.Condition()

    def put(self, dataset: str, awaited: Awaited) -> None:
        """Wait for a dataset, if not yet for the same."""
        with self._changed:
            if self._awaited.get(dataset) != awaited:
                self._awaited = {**self._awaited, dataset: awaited}
                self._changed.notify()

    def remove(self, dataset: str, awaited: Awaited | None = None) -> bool:
        """Wait for a dataset no longer; `awaited`: unless it waits for something else by now. Return whether it did."""
        with self._changed:
            found = self._awaited.get(dataset)
            if found is None or awaited not in (None, found):
                return False
            self._awaited = {name: each for name, each in self._awaited.items() if name != dataset}
            return True

    def current(self, is_ended: Callable[[], bool]) -> Mapping[str, Awaited]:
        """What is awaited; waits for the first one, or for `wake`. It is the same object until something changes."""
        with self._changed:
            while not self._awaited and not is_ended():
                self._changed.wait()
            return self._awaited

    def wake(self) -> None:
        """End the wait for a first one."""
        with self._changed:
            self._changed.notify()
