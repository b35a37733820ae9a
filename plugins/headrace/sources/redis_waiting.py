"""Waits at many Redis streams with one blocking XREAD."""

from collections.abc import Mapping, Set
from typing import Any

from redis.exceptions import RedisError, ResponseError

from headrace.sources.bounds import Bounds
from headrace.sources.redis import BEGINNING, EntryId, RedisSource
from headrace.sources.waiting import Awaited

BLOCK_MS = 200  # a stream that is awaited again is in the next request


class StreamsWaiter(RedisSource):
    """One connection for all streams of the server; entries are discarded."""

    def __init__(self, url: str) -> None:
        super().__init__("the followed streams", url, bounds=Bounds())

    def wait_for(self, awaited: Mapping[str, Awaited], seconds: float) -> Set[str]:
        """See `Waiter.wait_for`."""
        streams = {name: (each.source, _position(each)) for name, each in awaited.items()}
        lowest: dict[str, EntryId] = {}
        for stream, position in streams.values():
            lowest[stream] = min(position, lowest.get(stream, position))
        try:
            newest = self._newest(lowest, max(min(int(seconds * 1000), BLOCK_MS), 1))
        except ResponseError:  # it does not say of which stream
            return self._refused(streams)
        except RedisError as error:
            self._raise(error)
        return {name for name, (stream, position) in streams.items() if newest.get(stream, position) > position}

    def _newest(self, positions: Mapping[str, EntryId], block_ms: int | None) -> dict[str, EntryId]:
        """By stream the id of an entry after its position."""
        found: Any = self._client.xread({name: str(at) for name, at in positions.items()}, count=1, block=block_ms)
        return {name.decode(): EntryId.parse(entries[0][0]) for name, entries in found or ()}

    def _refused(self, streams: Mapping[str, tuple[str, EntryId]]) -> Set[str]:
        """The datasets whose streams cannot be read, or have an entry."""
        found: set[str] = set()
        for name, (stream, position) in streams.items():
            try:
                if self._newest({stream: position}, None):
                    found.add(name)
            except ResponseError:
                found.add(name)
            except RedisError as error:
                self._raise(error)
        return found


def _position(awaited: Awaited) -> EntryId:
    (_, position), *_ = awaited.positions.values()
    return BEGINNING if position is None else EntryId.parse(position)
