"""The request of a reload: offsets or times of a topic, and the ranges of its partitions that they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError
from headrace.postgres import staging
from headrace.postgres.checkpoints import Generation
from headrace.sources.base import ReloadableSource, SourceState
from headrace.times import EPOCH

MILLISECOND = timedelta(milliseconds=1)

# the first of the batches below the log start that has records of that time
FIRST_UNSERVED_BATCH = """
select min(batches.start_offset)
from headrace.batches as batches
where
    batches.dataset = %(dataset)s
    and batches.generation = %(generation)s
    and batches.partition = %(partition)s
    and batches.kind = 'drain'
    and batches.start_offset < %(served)s
    and batches.last_record_at >= %(start)s
    and batches.first_record_at < %(end)s
"""
# its first record of that time
FIRST_UNSERVED_RECORD = SQL("""
select min(at)
from (
    select _offset as at from {table}
    where
        _generation = %(generation)s and _partition = %(partition)s
        and _offset >= %(first)s and _offset < %(served)s
        and _timestamp >= %(start)s and _timestamp < %(end)s
    union all
    select "offset" from headrace.dead_letters
    where
        dataset = %(dataset)s and generation = %(generation)s and partition = %(partition)s
        and "offset" >= %(first)s and "offset" < %(served)s
        and "timestamp" >= %(start)s and "timestamp" < %(end)s
) as stored
""")

Bound = int | datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadRequest:
    """A half-open range of offsets or of times; partition None means all partitions."""

    partition: int | None = None
    offsets: tuple[int, int] | None = None
    times: tuple[datetime, datetime] | None = None


@dataclass(frozen=True, slots=True)
class RequestedRange:
    """[start, end) of a partition; full_end is above `end` if the checkpoint cut the range."""

    partition: int
    start: int
    end: int
    full_end: int = 0


def check_source_kind(dataset: Dataset) -> None:
    """Refuse a dataset whose source has no offsets to read again; name the command to use instead."""
    if dataset.source.is_file:
        load = Command("load", dataset.name)
        raise DatasetError(
            f"{dataset.name}: comes from a file, expected a topic: load the file again, `{load}`; an unchanged file is "
            "skipped, because its content is staged",
            command=load,
        )
    if not dataset.source.can_reload:
        replay = Command("replay", dataset.name)
        raise DatasetError(
            f"{dataset.name}: comes from a stream, expected a topic: only Kafka's offsets can be read again; staged "
            f"rows stay; `{replay}` decodes its dead letters by a corrected contract",
            command=replay,
        )


def parse(dataset: Dataset, start: str, end: str, partition: int | None) -> ReloadRequest:
    """Parse the bounds of a request; raises DatasetError if they are neither two offsets nor two times, or no range."""
    where = f"{dataset.name}: found --from {start} and --to {end}"
    match _parse_bound(dataset, "from", start), _parse_bound(dataset, "to", end):
        case int(first), int(last):
            request, is_range = ReloadRequest(partition=partition, offsets=(first, last)), first < last
        case datetime() as first, datetime() as last:
            request, is_range = ReloadRequest(partition=partition, times=(first, last)), first < last
        case _:
            raise DatasetError(f"{where}, expected two offsets or two times")
    if not is_range:
        raise DatasetError(f"{where}, expected --to above --from: a range is half-open, its end is not read")
    return request


def ranges(
    connection: Connection[Any],
    generation: Generation,
    state: SourceState,
    source: ReloadableSource,
    request: ReloadRequest,
) -> list[RequestedRange]:
    """The offsets of a request, cut to the checkpoints; empty if no record is of that time.

    Raises DatasetError for offsets that the topic no longer serves, or never had; the message names the range that it
    serves.
    """
    if request.times is not None:
        return _ranges_of_times(connection, generation, state, source, request.times, request.partition)
    assert request.offsets is not None
    return [_range_of_offsets(generation, state, request.offsets, request.partition)]


def _parse_bound(dataset: Dataset, option: str, text: str) -> Bound:
    text = text.strip()
    if text.endswith((" UTC", "z")):
        text = f"{text.removesuffix(' UTC').removesuffix('z')}Z"
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise DatasetError(
            f"{dataset.name}: found --{option} {text!r}, expected an offset, as 1200, or a time, as "
            "2026-01-31T09:30:00Z (UTC unless it names a zone)"
        ) from error


def _range_of_offsets(
    generation: Generation, state: SourceState, bounds: tuple[int, int], partition: int | None
) -> RequestedRange:
    start, end = bounds
    if partition is None and len(generation.next_offsets) > 1:
        raise DatasetError(
            f"{generation.dataset}: offsets are those of one partition, expected --partition, one of "
            f"{_listed(generation)}; times reload them all"
        )
    partition = _known(generation, next(iter(generation.next_offsets)) if partition is None else partition)
    where, next_offset = generation.where(partition), generation.next_offsets[partition]
    served = state.partitions[partition].log_start_offset
    if start >= next_offset:
        drain = Command("drain", generation.dataset)
        raise DatasetError(
            f"{where}: the checkpoint is {next_offset}, expected --from below it, got {start}: what comes next was "
            f"never read; `{drain}` reads it",
            command=drain,
        )
    if start < served:
        can_be_had = RequestedRange(partition, max(start, served), min(end, next_offset))
        _refuse_unserved(generation.dataset, where, f"[{start}, {min(end, served)})", served, [can_be_had])
    return RequestedRange(partition, start, min(end, next_offset), end)


def _ranges_of_times(
    connection: Connection[Any],
    generation: Generation,
    state: SourceState,
    source: ReloadableSource,
    times: tuple[datetime, datetime],
    partition: int | None,
) -> list[RequestedRange]:
    partitions = sorted(generation.next_offsets) if partition is None else [_known(generation, partition)]
    starts, ends = (source.offsets_at(partitions, -(-(at - EPOCH) // MILLISECOND)) for at in times)
    wanted: list[RequestedRange] = []
    for each in partitions:
        next_offset = generation.next_offsets[each]
        start, end = (next_offset if at is None else min(at, next_offset) for at in (starts[each], ends[each]))
        if start < end:
            wanted.append(RequestedRange(each, start, end))
    for each in partitions:
        served = state.partitions[each].log_start_offset
        unserved = _unserved(connection, generation, each, served, times)
        if unserved is not None:
            where = generation.where(each)
            _refuse_unserved(generation.dataset, where, f"offset {unserved}, of that time,", served, wanted)
    return wanted


def _unserved(
    connection: Connection[Any], generation: Generation, partition: int, served: int, times: tuple[datetime, datetime]
) -> int | None:
    """The first offset of that time that was staged and is no longer served."""
    parameters: dict[str, Any] = {
        "dataset": generation.dataset,
        "generation": generation.generation,
        "partition": partition,
        "served": served,
        "start": times[0],
        "end": times[1],
    }
    row = connection.execute(
        FIRST_UNSERVED_BATCH,
        parameters,
    ).fetchone()
    if row is None or row[0] is None:
        return None
    parameters["first"] = row[0]
    # the batch may hold other times too: its rows decide
    found = connection.execute(
        FIRST_UNSERVED_RECORD.format(table=Identifier(staging.SCHEMA, generation.dataset)),
        parameters,
    ).fetchone()
    return None if found is None else found[0]


def _refuse_unserved(
    dataset: str, where: str, what: str, served: int, can_be_had: Sequence[RequestedRange]
) -> NoReturn:
    commands = [
        Command("reload", dataset, "--partition", each.partition, "--from", each.start, "--to", each.end)
        for each in can_be_had
        if each.start < each.end
    ]
    listed = ", ".join(f"`{command}`" for command in commands)
    had = f"available: {listed}" if commands else "nothing of the range is available; what is staged stays"
    raise DatasetError(
        f"{where}: {what} is no longer served, the log starts at {served}; nothing was changed; {had}",
        command=commands[0] if commands else None,
    )


def _known(generation: Generation, partition: int) -> int:
    if partition not in generation.next_offsets:
        raise DatasetError(
            f"{generation.dataset}[{partition}]: no such partition, expected one of {_listed(generation)}"
        )
    return partition


def _listed(generation: Generation) -> str:
    origins = generation.origins
    return ", ".join(f"{p} ({origins[p]})" if p in origins else str(p) for p in sorted(generation.next_offsets))
