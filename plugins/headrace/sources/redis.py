"""Records from a Redis stream, read by id from the checkpoint and without a consumer group.

A stream has no offsets and no identity. Its entries are numbered here as XADD counted them (`entries-added`): an
entry's offset is how many were added before it, and what was trimmed away lies below the log start, as in Kafka. The
checkpoint's source_position is the id of the last entry that lies below it; where to go on is decided by that id alone.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn, Self

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from headrace.command import Command
from headrace.exceptions import (
    DatasetError,
    SourceChanged,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    TopicMissing,
)
from headrace.record import Headers, Record
from headrace.service_urls import redis_options
from headrace.sources.base import Chunk, PartitionState, Range, SourcePosition, SourceState
from headrace.sources.bounds import Bounds, oversized_entry
from headrace.sources.redis_answers import bytes_of, client, is_whole

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
# XRANGE counts entries and cannot bound bytes: 5,000 entries of 300 kB were an answer of 1.5 GB. So each look asks for
# as many as fit into CHUNK_BYTES, going by the largest entry of the last answer; where they grow from one look to the
# next, redis_answers keeps those that fit. More than CHUNK_ENTRIES at once read no faster, unless each look costs more
# than they do: it brings the stream's first and last entry, of up to 512 MB.
CHUNK_ENTRIES = 250
CHUNKS_MAX = 40
FIRST_ENTRIES = 16
CHUNK_BYTES = 4 * 1024 * 1024
ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {ord('"'): b'\\"', ord("\\"): b"\\\\"}
ESCAPED = re.compile(rb'[\x00-\x1f"\\]')
SEQUENCE_MAX = 2**64 - 1


class EntryId(NamedTuple):
    """An entry's id, `milliseconds-sequence`; a stream's entries lie in their order."""

    milliseconds: int
    sequence: int

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Read an id as Redis writes it."""
        milliseconds, _, sequence = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(milliseconds), int(sequence or 0))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    def before(self) -> "EntryId":
        """The id just below; no entry is 0-0."""
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
    """What XINFO STREAM says at one moment.

    added: entries that were ever added. gone: those of them that are no longer there, trimmed or deleted (XDEL).
    first: of what is there; None where nothing is. last: the last that was ever added. deleted: the highest that XDEL
    took; trimming leaves no trace.
    """

    added: int
    gone: int
    first: EntryId | None
    last: EntryId
    deleted: EntryId

    def contradiction(self, offset: int, position: EntryId, is_there: bool | None) -> str | None:
        """Why this is not the stream of which `position` was the offset-th entry; None where it may be.

        is_there: whether the entry at `position` still is; None where it was not asked. A stream that was recreated,
        and trimmed behind its entry number `offset` exactly, looks like the old one trimmed at the checkpoint.
        """
        if self.last < position:
            return f"its last id is {self.last}, expected {position} or a later one"
        if self.added < offset:
            return f"{self.added} entries were ever added to it, {offset} were read"
        if self.added == offset and self.last != position and self.deleted < self.last:
            return f"its entry {offset} is {self.last}, expected {position}"
        if self.is_past(position) and self.gone < offset:
            return (
                f"its first entry is {self.first}, behind {position}, yet only {self.gone} of the "
                f"{offset} entries that were read are gone"
            )
        if is_there is False and not self.is_past(position) and self.deleted < position:
            return f"it holds older entries than {position}, not that one, and none was deleted there"
        return None

    def is_past(self, position: EntryId) -> bool:
        """Whether nothing up to `position` is left."""
        return self.first is None or self.first > position

    def may_be_trimmed(self, position: EntryId) -> bool:
        """Whether entries behind `position` can have been trimmed: not while it, or the id right behind it, leads."""
        return self.first is None or self.first.before() > position


class RedisSource:
    """A stream; partition 0.

    An entry of one field whose value is a JSON object is that object. Other entries become an object of their fields,
    all text: what is a number is the contract's to say.
    """

    def __init__(self, stream: str, url: str, *, bounds: Bounds | None = None) -> None:
        self.stream = stream
        self._bounds = bounds or Bounds()
        self._look_bytes = 0  # of the entries that the last look brought besides those that it asked for
        self._client = connect(url, self._bounds.record_bytes)

    def describe(self) -> SourceState:
        """What was added and what is still there; see `seen_from` for what that proves."""
        info = self._info()
        start = info.last if info.first is None else info.first.before()
        found = PartitionState(info.gone, info.added, info.added, str(start), str(info.last))
        return SourceState(self.stream, self.stream, {0: found})

    def topic_id(self) -> str:
        """A stream has no identity of its own but its name; `read` looks at more."""
        return self.stream

    def cluster_id(self) -> str | None:
        """A server's run id changes with every restart: it identifies nothing."""
        return None

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The state for a checkpoint; raises SourceChanged when the stream was recreated or set back.

        Where an entry at or before the checkpoint is still there nothing behind it was trimmed, also after XDEL.
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

        Entries that were deleted one by one (XDEL) leave a gap at the range's end. Raises SourceChanged when the
        stream was trimmed past what is to be read, set back or recreated meanwhile.
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
            # those behind the first that did not fit are asked for again; one that comes first fits into no answer
            whole = next((i for i, (_, fields) in enumerate(entries) if not is_whole(fields)), len(entries))
            for part in _parts(entries[: max(whole, 1)], sizes):
                records = [self._record(offset + i, *entry) for i, entry in enumerate(part)]
                offset, position = offset + len(records), EntryId.parse(part[-1][0])
                yield Chunk(0, records, offset, str(position))
            del entries, part, records  # not held while the next ones are fetched

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait for an entry behind the place's id."""
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
        """Refuse a stream that is not the one of this position, or not the one in which the range's end was pinned."""
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
        """Up to `count` entries behind a position and up to `end`, whether the one there is, and the stream's state.

        All of one moment. The entry's presence tells a stream from another of its name.
        """
        try:
            with self._client.pipeline(transaction=True) as pipeline:
                # first what is wanted: what does not fit any more is not kept
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
                f"redis: {self._address()} does not let this user in, or not at {self.stream}: {text}; nothing was "
                "changed; correct HEADRACE_REDIS_URL (in Airflow: the connection headrace_redis) or the user's ACL"
            ) from error
        if not isinstance(error, ResponseError):
            raise SourceUnavailable(
                f"redis: {self._address()} did not answer: {text}; start it (`headrace up`) or correct "
                "HEADRACE_REDIS_URL",
                command=Command("up"),
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
    """Entries in parts of CHUNK_BYTES, give or take the last one of each."""
    begin = size = 0
    for end in range(1, len(entries) + 1):
        size += sizes[end - 1]
        if size >= CHUNK_BYTES or end == len(entries):
            yield entries[begin:end]
            begin, size = end, 0


def connect(url: str, answer_bytes: int) -> "redis.Redis":
    """A client that keeps so many bytes of an answer; raises SettingError for a URL that is none."""
    redis_options(url)
    return client(url, answer_bytes, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=READ_TIMEOUT_S)


def _quoted(text: bytes) -> bytes:
    """A JSON string of the bytes as they are: what is not UTF-8 stays so, for the contract to find."""
    return b'"' + ESCAPED.sub(lambda found: ESCAPES[found[0][0]], text) + b'"'
