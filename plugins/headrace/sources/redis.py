"""Records from a Redis stream, read by id from the checkpoint and without a consumer group.

A stream has no offsets and no identity. Its entries are numbered as XADD counted them (`entries-added`): an entry's
offset is the number of entries added before it, and trimmed entries are below the log start, as in Kafka. The
checkpoint's source_position is the id of the last entry below it; reading continues after that id.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn, Self

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from headrace.command import Command
from headrace.exceptions import DatasetError, SourceChanged, SourceError, SourceRefused, SourceUnavailable, TopicMissing
from headrace.record import Headers, Record
from headrace.service_urls import redis_options
from headrace.sources.base import Chunk, PartitionState, Range, SourcePosition, SourceState
from headrace.sources.bounds import Bounds, oversized_entry
from headrace.sources.redis_answers import bytes_of, client, is_whole

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
# XRANGE counts entries and cannot limit bytes: 5,000 entries of 300 kB were an answer of 1.5 GB. So each request asks
# for as many as fit into CHUNK_BYTES by the size of the largest entry of the last answer; if entries grow from one
# request to the next, redis_answers keeps those that fit. More than CHUNK_ENTRIES at once are faster only if a request
# costs more than its entries: it also returns the stream's first and last entry, of up to 512 MB.
CHUNK_ENTRIES = 250
CHUNKS_MAX = 40
FIRST_ENTRIES = 16
CHUNK_BYTES = 4 * 1024 * 1024
ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {ord('"'): b'\\"', ord("\\"): b"\\\\"}
ESCAPED = re.compile(rb'[\x00-\x1f"\\]')
SEQUENCE_MAX = 2**64 - 1


class EntryId(NamedTuple):
    """An entry's id, `milliseconds-sequence`; ids of a stream are in ascending order."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Parse an id as Redis writes it."""
        milliseconds, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(milliseconds), int(sequence or 0))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    def before(self) -> "EntryId":
        """The next lower id; no entry is 0-0."""
        if self.sequence:
            return EntryId(self.milliseconds, self.sequence - 1)
        return EntryId(self.milliseconds - 1, SEQUENCE_MAX)


BEGINNING = EntryId(0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stream's entry as a record: its id is its key, the id's milliseconds are its time."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The result of XINFO STREAM at one moment.

    added: entries ever added. gone: entries that were trimmed or deleted (XDEL). first: the first entry's id; None if
    the stream is empty. last: the id of the last entry ever added. deleted: the highest id that XDEL removed; trimming
    leaves no such trace.
    """

    added: int
    gone: int
    first: EntryId | None
    last: EntryId
    deleted: EntryId

    def contradiction(self, offset: int, position: EntryId, is_there: bool | None) -> str | None:
        """Why this cannot be the stream whose offset-th entry had this position; None if it can be.

        is_there: whether the entry at `position` still exists; None if that was not asked. A stream that was created
        again and trimmed after exactly `offset` entries looks like the old one trimmed at the checkpoint.
        """
        if self.last < position:
            return f"its last id is {self.last}, expected {position} or a later one"
        if self.added < offset:
            return f"{self.added} entries were ever added to it, {offset} were read"
        if self.added == offset and self.last != position and self.deleted < self.last:
            return f"its entry {offset} is {self.last}, expected {position}"
        if self.is_past(position) and self.gone < offset:
            return (
                f"its first entry is {self.first}, after {position}, yet only {self.gone} of the "
                f"{offset} entries that were read are gone"
            )
        if is_there is False and not self.is_past(position) and self.deleted < position:
            return f"it holds older entries than {position}, not that one, and none was deleted there"
        return None

    def is_past(self, position: EntryId) -> bool:
        """Whether no entry up to `position` is left."""
        return self.first is None or self.first > position

    def may_be_trimmed(self, position: EntryId) -> bool:
        """Whether entries after `position` may have been trimmed: not while its entry, or the next id, comes first."""
        return self.first is None or self.first.before() > position


class RedisSource:
    """A stream; partition 0.

    An entry with one field whose value is a JSON object is that object. Other entries become an object of their
    fields, all text; the contract converts numbers.
    """

    def __init__(self, stream: str, url: str, *, bounds: Bounds | None = None) -> None:
        self.stream = stream
        self._bounds = bounds or Bounds()
        self._look_bytes = 0  # of the first and last entry in the last XINFO answer
        self._client = connect(url, self._bounds.record_bytes)

    def describe(self) -> SourceState:
        """The counts of added and remaining entries; `seen_from` checks them against a checkpoint."""
        info = self._info()
        start = info.last if info.first is None else info.first.before()
        found = PartitionState(info.gone, info.added, info.added, str(start), str(info.last))
        return SourceState(self.stream, self.stream, {0: found})

    def topic_id(self) -> str:
        """The stream's name: it has no other identity; `read` checks more."""
        return self.stream

    def cluster_id(self) -> str | None:
        """None: a server's run id changes with every restart."""
        return None

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The state for a checkpoint; raises SourceChanged if the stream was created again or restored.

        While an entry at or before the checkpoint exists, nothing after it was trimmed, also after XDEL.
        """
        offset, position = next_offsets.get(0), positions.get(0)
        if offset is None or position is None:
            return state
        at = EntryId.parse(position)
        _, is_there, info = self._look(at, at, 1)
        wrong = info.contradiction(offset, at, is_there)
        if wrong:
            raise SourceChanged(
                f"{self.stream}: {wrong}: the stream was deleted and created again, or restored to an earlier state"
            )
        found = state.partitions[0]
        if not info.may_be_trimmed(at):
            found = replace(found, log_start_offset=min(found.log_start_offset, offset))
        return replace(state, partitions={0: found})

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the entries after the range's position; see `Source.read`.

        Entries that XDEL removed leave a gap at the range's end. Raises SourceChanged if the stream was trimmed past
        the range, restored or created again meanwhile.
        """
        wanted = ranges.get(0)
        if wanted is None or wanted.start >= wanted.end:
            return
        offset, position = wanted.start, EntryId.parse(wanted.position or str(BEGINNING))
        end_position = EntryId.parse(wanted.end_position) if wanted.end_position else None
        count = FIRST_ENTRIES
        while offset < wanted.end:
            chunks = min(1 + self._look_bytes // CHUNK_BYTES, CHUNKS_MAX)
            count = min(count, CHUNK_ENTRIES * chunks, wanted.end - offset)
            entries, is_there, info = self._look(position, end_position, count)
            if wanted.position is not None:
                self._check(info, offset, position, is_there, wanted)
            if not entries:
                yield Chunk(0, [], wanted.end, str(end_position or position))
                return
            sizes = [bytes_of(fields) for _, fields in entries]
            count = max(min(2 * count, CHUNK_BYTES * chunks // max(sizes)), 1)
            # entries from the first that did not fit on are requested again; a first one that does not fit never will
            whole = next((i for i, (_, fields) in enumerate(entries) if not is_whole(fields)), len(entries))
            for part in _parts(entries[: max(whole, 1)], sizes):
                records = [self._record(offset + i, *entry) for i, entry in enumerate(part)]
                offset, position = offset + len(records), EntryId.parse(part[-1][0])
                yield Chunk(0, records, offset, str(position))
            del entries, part, records  # frees their memory while the next ones are fetched

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait for an entry after the position."""
        position = source_positions[0][1] or str(BEGINNING)
        try:
            return bool(self._client.xread({self.stream: position}, count=1, block=max(int(seconds * 1000), 1)))
        except RedisError as error:
            self._raise(error)

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
            self._raise(error)

    def _check(self, info: StreamInfo, offset: int, position: EntryId, is_there: bool, wanted: Range) -> None:
        """Refuse a stream that does not match this position, or the range's pinned end."""
        end = wanted.end
        wrong = info.contradiction(offset, position, is_there)
        if wanted.end_position is not None:
            wrong = wrong or info.contradiction(end, EntryId.parse(wanted.end_position), None)
        if wrong:
            raise SourceChanged(
                f"{self.stream}: {wrong}: the stream was deleted and created again, or restored to an "
                f"earlier state, while it was read; at risk: [{offset}, {end}); run the drain again to see its state"
            )
        if info.may_be_trimmed(position) and info.gone > offset:
            raise SourceChanged(
                f"{self.stream}: [{offset}, {min(info.gone, end)}) was trimmed or deleted before it was read; run the "
                "drain again to see the range"
            )

    def _look(
        self, position: EntryId, end: EntryId | None, count: int
    ) -> tuple[list[tuple[bytes, Any]], bool, StreamInfo]:
        """Up to `count` entries after a position and up to `end`, whether one is at the position, and the info.

        All at one moment. The entry's presence distinguishes the stream from another of the same name.
        """
        try:
            with self._client.pipeline(transaction=True) as pipeline:
                # the requested entries first: what no longer fits is not kept
                pipeline.xrange(self.stream, min=f"({position}", max=str(end or "+"), count=count)
                pipeline.xrange(self.stream, min=str(position), max=str(position), count=1)
                pipeline.xinfo_stream(self.stream)
                entries, there, info = pipeline.execute()
        except RedisError as error:
            self._raise(error)
        self._look_bytes = sum(bytes_of(fields) for _, fields in there)
        return entries, bool(there), self._parsed(info)

    def _info(self) -> StreamInfo:
        try:
            info: Mapping[str, Any] = self._client.xinfo_stream(self.stream)
        except RedisError as error:
            self._raise(error)
        return self._parsed(info)

    def _parsed(self, info: Mapping[str, Any]) -> StreamInfo:
        if "entries-added" not in info:
            raise DatasetError(
                f"{self.stream}: {self._address()} does not count what is added to a stream, expected Redis 7 or Valkey"
            )
        added, first = int(info["entries-added"]), info["first-entry"]
        self._look_bytes += bytes_of(info["last-entry"][1]) if info["last-entry"] else 0
        self._look_bytes += bytes_of(first[1]) if first else 0
        return StreamInfo(
            added=added,
            gone=added - int(info["length"]),
            first=EntryId.parse(first[0]) if first else None,
            last=EntryId.parse(info["last-generated-id"]),
            deleted=EntryId.parse(info["max-deleted-entry-id"]),
        )

    def _raise(self, error: RedisError) -> NoReturn:
        text = " ".join(str(error).split())
        if isinstance(error, AuthenticationError | NoPermissionError) or text.startswith("NOAUTH"):
            raise SourceRefused(
                f"redis: {self._address()} refuses this user, or its access to {self.stream}: {text}; nothing was "
                "changed; correct HEADRACE_REDIS_URL (in Airflow: the connection headrace_redis) or the user's ACL",
                cause=f"Redis at {self._address()} refuses this user",
            ) from error
        if not isinstance(error, ResponseError):
            raise SourceUnavailable(
                f"redis: {self._address()} did not answer: {text}; start it (`headrace up`) or correct "
                "HEADRACE_REDIS_URL",
                command=Command("up"),
                cause=f"Redis at {self._address()} does not answer",
            ) from error
        if "no such key" in text or "requires the key to exist" in text:
            raise TopicMissing(
                f"{self.stream}: no such stream at {self._address()}; add an entry, `headrace produce` into it, or "
                "correct the dataset's stream"
            ) from error
        if "WRONGTYPE" in text:
            raise DatasetError(
                f"{self.stream}: the key at {self._address()} is no stream, expected one; correct the dataset's stream"
            ) from error
        raise SourceError(f"{self.stream}: {self._address()} answered {text}") from error

    def _address(self) -> str:
        options = self._client.get_connection_kwargs()  # the URL itself may hold a password
        return str(options["path"]) if "path" in options else f"{options.get('host')}:{options.get('port')}"

    def _record(self, offset: int, entry_id: bytes, fields: Any) -> Record:
        if not is_whole(fields):
            return oversized_entry(self._bounds, offset, entry_id, bytes_of(fields))
        pairs = list(zip(fields[::2], fields[1::2], strict=True))
        return Entry(offset, entry_id, self._document(pairs), int(entry_id.partition(b"-")[0]))

    def _document(self, pairs: list[tuple[bytes, bytes]]) -> bytes:
        if len(pairs) == 1 and pairs[0][1].lstrip()[:1] == b"{":
            return pairs[0][1]
        return b"{" + b",".join(_quoted(name) + b":" + _quoted(text) for name, text in pairs) + b"}"


def _parts(entries: Sequence[tuple[bytes, Any]], sizes: Sequence[int]) -> Iterator[Sequence[tuple[bytes, Any]]]:
    """Entries in parts of CHUNK_BYTES, each plus at most one entry."""
    begin = size = 0
    for end in range(1, len(entries) + 1):
        size += sizes[end - 1]
        if size >= CHUNK_BYTES or end == len(entries):
            yield entries[begin:end]
            begin, size = end, 0


def connect(url: str, answer_bytes: int) -> "redis.Redis":
    """A client that keeps this many bytes of an answer; raises SettingError for an invalid URL."""
    redis_options(url)
    return client(url, answer_bytes, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=READ_TIMEOUT_S)


def _quoted(text: bytes) -> bytes:
    """A JSON string of the unchanged bytes: the contract finds those that are not UTF-8."""
    return b'"' + ESCAPED.sub(lambda found: ESCAPES[found[0][0]], text) + b'"'
