"""Records from a Redis stream, read by id from the checkpoint and without a consumer group.

A stream has no offsets and no identity. Its entries are numbered here as XADD counted them (`entries-added`): an
entry's offset is how many were added before it, and what was trimmed away lies below the log start, as in Kafka. The
checkpoint's source_position is the id of the last entry read; where to go on is decided by that id alone.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from headrace.exceptions import SourceChanged, SourceError, SourceUnavailable, TopicMissing
from headrace.source import Chunk, PartitionState, Range, SourceState

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
CHUNK_ENTRIES = 5_000
BEGINNING = "0-0"
NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {ord('"'): b'\\"', ord("\\"): b"\\\\"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream's entry as a record: its id is its key, the id's milliseconds are its time."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]] = ()


class RedisSource:
    """A stream; partition 0.

    An entry of one field whose value is a JSON object is that object. Other entries become an object of their fields,
    all text, but for those that `numeric` names: where they look like a JSON number they are one.
    """

    def __init__(self, stream: str, url: str, *, numeric: frozenset[str] = frozenset()) -> None:
        self.stream = stream
        self._numeric = {name.encode() for name in numeric}
        self._url = url
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=READ_TIMEOUT_S, retry=None
        )
        # fields as they came: redis-py would make a dictionary of them, and lose a field that stands twice
        self._client.set_response_callback("XRANGE", lambda entries, **_: entries)

    def describe(self) -> SourceState:
        """What was added and what is still there; see `check_position` for what that proves."""
        info = self._info()
        added, length = int(info["entries-added"]), int(info["length"])
        return SourceState(self.stream, self.stream, {0: PartitionState(added - length, added, added)})

    def topic_id(self) -> str:
        """A stream has no identity of its own but its name."""
        self._info()
        return self.stream

    def check_position(self, partition: int, next_offset: int, position: str | None) -> None:
        """Refuse a stream that cannot be the one of which `position` was the last entry read.

        Raises SourceChanged when the stream was made anew or set back. Trimming past the checkpoint shows in the log
        start that `describe` gives.
        """
        info = self._info()
        if position is None:
            return
        last, first = _id(info["last-generated-id"]), info["first-entry"]
        gone = int(info["entries-added"]) - int(info["length"])
        if _order(last) < _order(position):
            raise SourceChanged(
                f"{self.stream}: its last id is {last}, the checkpoint's is {position}: the stream was deleted and "
                "made anew, or set back; at risk: what it holds now; `headrace adopt` reads it from its start"
            )
        if first is not None and _order(_id(first[0])) > _order(position) and gone < next_offset:
            raise SourceChanged(
                f"{self.stream}: its first entry is {_id(first[0])}, behind the checkpoint's {position}, yet only "
                f"{gone} of the {next_offset} entries that were read are gone: the stream was deleted and made anew; "
                "at risk: what it holds now; `headrace adopt` reads it from its start"
            )

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the entries after the range's position; see `Source.read`.

        Entries that were deleted one by one (XDEL) leave a gap at the range's end.
        """
        wanted = ranges.get(0)
        if wanted is None or wanted.start >= wanted.end:
            return
        offset, position = wanted.start, wanted.position or BEGINNING
        while offset < wanted.end:
            entries = self._entries(position, min(CHUNK_ENTRIES, wanted.end - offset))
            if not entries:
                break
            records = [self._record(offset + i, *entry) for i, entry in enumerate(entries)]
            offset += len(records)
            position = _id(entries[-1][0])
            yield Chunk(0, records, offset, position)
        if offset < wanted.end:
            yield Chunk(0, [], wanted.end, position)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Move the group, for XINFO GROUPS and lag tools."""
        position = positions.get(0)
        if position is None:
            return
        try:
            try:
                self._client.xgroup_setid(self.stream, group, position, entries_read=next_offsets[0])
            except ResponseError:  # no such group yet
                self._client.xgroup_create(self.stream, group, id=position, entries_read=next_offsets[0])
        except RedisError as error:
            raise self._failed(error) from error

    def _entries(self, position: str, count: int) -> list[tuple[bytes, list[bytes]]]:
        try:
            entries: Any = self._client.xrange(self.stream, min=f"({position}", count=count)
        except RedisError as error:
            raise self._failed(error) from error
        return [(entry_id, fields) for entry_id, fields in entries]

    def _info(self) -> dict[str, Any]:
        try:
            info: dict[str, Any] = self._client.xinfo_stream(self.stream)
        except ResponseError as error:
            if "no such key" in str(error):
                raise TopicMissing(
                    f"{self.stream}: no such stream at {self._address()}; add an entry, `headrace produce` into it, or "
                    "correct the dataset's stream"
                ) from error
            raise SourceError(f"{self.stream}: {error}; expected a stream of Redis 7 or Valkey") from error
        except RedisError as error:
            raise self._failed(error) from error
        return info

    def _failed(self, error: RedisError) -> SourceUnavailable:
        return SourceUnavailable(
            f"redis: {self._address()} did not answer: {' '.join(str(error).split())}; start it (`headrace up`) or "
            "correct HEADRACE_REDIS_URL"
        )

    def _address(self) -> str:
        options = self._client.get_connection_kwargs()  # the URL itself may hold a password
        return f"{options.get('host')}:{options.get('port')}"

    def _record(self, offset: int, entry_id: bytes, fields: list[bytes]) -> Entry:
        pairs = list(zip(fields[::2], fields[1::2], strict=True))
        return Entry(offset, entry_id, self._document(pairs), int(entry_id.partition(b"-")[0]))

    def _document(self, pairs: list[tuple[bytes, bytes]]) -> bytes:
        if len(pairs) == 1 and pairs[0][1].lstrip()[:1] == b"{":
            return pairs[0][1]
        return b"{" + b",".join(_quoted(name) + b":" + self._json(name, text) for name, text in pairs) + b"}"

    def _json(self, name: bytes, text: bytes) -> bytes:
        return text if name in self._numeric and NUMBER.fullmatch(text) else _quoted(text)


def _quoted(text: bytes) -> bytes:
    """A JSON string of the bytes as they are: what is not UTF-8 stays so, for the contract to find."""
    return b'"' + b"".join(ESCAPES.get(byte) or bytes((byte,)) for byte in text) + b'"'


def _id(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
