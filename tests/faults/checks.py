"""The checks of a trial, each a function from evidence to violations.

A violation says which dataset, partition and offset, what was found and what was expected. The truth is the
producer's own record and a second client's reading; nothing here asks the loader.
"""

import json
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from tests.faults.evidence import JOB_COLUMNS, Coordinate, Evidence
from tests.faults.traffic import Headers, Produced
from tests.support.jobs_oracle import decode_job

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMED = 3  # violations of a check that are listed in full


@dataclass(frozen=True, slots=True)
class Violation:
    """A failed check: where, found, expected."""

    check: str
    message: str


Check = Callable[[Evidence], Iterator[str]]


def judge(evidence: Evidence) -> list[Violation]:
    """Run all checks."""
    found = []
    for name, check in CHECKS.items():
        messages = list(check(evidence))
        found += [Violation(name, message) for message in messages[:NAMED]]
        if len(messages) > NAMED:
            found.append(Violation(name, f"... and {len(messages) - NAMED} more of this check"))
    return found


def truths_agree(e: Evidence) -> Iterator[str]:
    """The second client read exactly the records that the producer logged: the checks need one truth."""
    for generation, log in e.stream.logs.items():
        recorded = {
            coordinate: record.digest
            for coordinate, record in log.visible().items()
            if not _is_gone(e, generation, coordinate)
        }
        seen = {
            coordinate: found
            for coordinate, found in e.seen[generation].items()
            if not _is_gone(e, generation, coordinate)
        }
        for coordinate in sorted(recorded.keys() | seen.keys()):
            if recorded.get(coordinate) != seen.get(coordinate):
                yield (
                    f"{_at(e, (generation, *coordinate))}: the producer's record says {recorded.get(coordinate)}, "
                    f"the second client read {seen.get(coordinate)}"
                )


def accounted_once(e: Evidence) -> Iterator[str]:
    """Staged + dead + tombstones are the visible records below the checkpoint, without duplicates."""
    expected = {
        (generation, *coordinate)
        for generation, seen in e.seen.items()
        for coordinate in seen
        if _is_ours(e, generation, coordinate)
    }
    for at in sorted(expected | e.staged.keys() | e.dead.keys()):
        staged, dead = len(e.staged.get(at, ())), len(e.dead.get(at, ()))
        if staged + dead != (at in expected):
            wanted = "exactly one of them" if at in expected else "none: no visible record is there, or it is not ours"
            yield f"{_at(e, at)}: found {staged} staged rows and {dead} dead letters, expected {wanted}"


def payload(e: Evidence) -> Iterator[str]:
    """Dead letters hold the raw bytes; staged rows equal an independent decoding."""
    for at, rows in sorted(e.dead.items()):
        record = e.stream.logs[at[0]].records.get(at[1:])
        if record is None:
            continue
        wanted = _dead_letter(record)
        for row in rows:
            found = {name: row[name] for name in wanted}
            if found != wanted:
                yield f"{_at(e, at)}: dead letter: {_difference(found, wanted)}"
            elif _row(record) is not None:
                yield f"{_at(e, at)}: found a dead letter ({row['reason']}), expected a row: the record is valid"
    for at, rows in sorted(e.staged.items()):
        record = e.stream.logs[at[0]].records.get(at[1:])
        if record is None:
            continue
        wanted_row = _row(record)
        for row in rows:
            if wanted_row is None:
                yield f"{_at(e, at)}: found a row, expected a dead letter: {record.value!r:.120} breaks the contract"
            elif (found := {name: row[name] for name in wanted_row}) != wanted_row:
                yield f"{_at(e, at)}: row: {_difference(found, wanted_row)}"


def attribution(e: Evidence) -> Iterator[str]:
    """Every row belongs to the ledger line that covers its offset."""
    lines = {line.batch_id: line for line in e.lines}
    for kind, table, column in (("row", e.staged, "_batch_id"), ("dead letter", e.dead, "batch_id")):
        for at, rows in sorted(table.items()):
            for row in rows:
                line = lines.get(row[column])
                if line is None:
                    yield f"{_at(e, at)}: {kind} of batch {row[column]}, expected a batch that the ledger knows"
                elif (line.generation, line.partition) != at[:2] or not line.start_offset <= at[2] < line.end_offset:
                    yield (
                        f"{_at(e, at)}: {kind} of the batch {line.generation}/[{line.partition}] "
                        f"[{line.start_offset}, {line.end_offset}), expected the one that covers it"
                    )


def chain(e: Evidence) -> Iterator[str]:
    """A partition's ledger lines follow each other without gap or overlap, from 0 to its checkpoint."""
    ranges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for line in e.lines:
        ranges[line.generation, line.partition].append((line.start_offset, line.end_offset))
    for (generation, partition), checkpoint in sorted(e.checkpoints.items()):
        at = 0
        for start, end in ranges.pop((generation, partition), []):  # in the order in which they were committed
            if start != at:
                what = "a gap" if start > at else "an overlap"
                where = _at(e, (generation, partition, start))
                yield f"{where}: the ledger has {what}: a line starts here, expected {at}"
            at = end
        if at != checkpoint:
            yield f"{_at(e, (generation, partition, at))}: the ledger ends here, the checkpoint is {checkpoint}"
    for generation, partition in ranges:
        yield f"{_at(e, (generation, partition, 0))}: lines in the ledger, expected a checkpoint beside them"


def counts(e: Evidence) -> Iterator[str]:
    """A line's counts, bytes and times are those of the records in its range."""
    per_line: dict[tuple[Any, str], int] = Counter()
    for rows in e.staged.values():
        for row in rows:
            per_line[row["_batch_id"], "tombstones" if row["_deleted"] else "staged"] += 1
    for rows in e.dead.values():
        for row in rows:
            per_line[row["batch_id"], "dead"] += 1
    visible: dict[tuple[int, int], list[tuple[int, Produced]]] = defaultdict(list)
    for generation, log in e.stream.logs.items():
        for (partition, offset), record in log.visible().items():
            visible[generation, partition].append((offset, record))
    for line in e.lines:
        where = f"{_at(e, (line.generation, line.partition, line.start_offset))}: line {line.seq}"
        if line.kind in ("adopt", "accept_loss"):
            continue
        held = [
            record
            for offset, record in visible[line.generation, line.partition]
            if line.start_offset <= offset < line.end_offset
        ]
        times = [EPOCH + timedelta(milliseconds=record.timestamp) for record in held]
        wanted = {
            "staged": per_line[line.batch_id, "staged"],
            "tombstones": per_line[line.batch_id, "tombstones"],
            "dead": per_line[line.batch_id, "dead"],
            "empty": line.end_offset - line.start_offset - len(held),
            "ignored": 0,  # no dataset of the suite has a condition
            "bytes": sum(len(record.key or b"") + len(record.value or b"") for record in held),
            "first_record_at": min(times, default=None),
            "last_record_at": max(times, default=None),
        }
        found = {name: getattr(line, name) for name in wanted}
        if found != wanted:
            yield f"{where}: {_difference(found, wanted)}"


def sequence(e: Evidence) -> Iterator[str]:
    """seq has no gap and follows commit order."""
    found = [line.seq for line in e.lines]
    if found != list(range(1, len(found) + 1)) or e.last_seq != len(found):
        holes = sorted(set(range(1, e.last_seq + 1)) - set(found))[:5]
        yield f"{e.stream.name}: {len(found)} lines, last_seq {e.last_seq}, missing {holes}; expected 1 to {len(found)}"


def stable_end(e: Evidence) -> Iterator[str]:
    """No checkpoint is after the last stable offset."""
    generation = max(e.stream.logs)
    for partition, end in e.stable_ends.items():
        checkpoint = e.checkpoints.get((generation, partition), 0)
        if checkpoint > end:
            yield f"{_at(e, (generation, partition, checkpoint))}: checkpoint, expected at most the stable end {end}"


def closed_generations(e: Evidence) -> Iterator[str]:
    """No line of a closed generation commits after the generation was closed."""
    for line in e.lines:
        closed_at = e.closed.get(line.generation)
        if closed_at is not None and line.committed_at > closed_at:
            yield (
                f"{_at(e, (line.generation, line.partition, line.start_offset))}: line {line.seq} committed at "
                f"{line.committed_at}, expected none after the generation was closed at {closed_at}"
            )


def no_aborted(e: Evidence) -> Iterator[str]:
    """Nothing is stored of an aborted or open transaction."""
    for kind, table in (("row", e.staged), ("dead letter", e.dead)):
        for at in sorted(table):
            record = e.stream.logs[at[0]].records.get(at[1:])
            if record is not None and record.fate != "visible":
                yield f"{_at(e, at)}: found a {kind}, expected none: its transaction is {record.fate}"


def acknowledged_present(e: Evidence) -> Iterator[str]:
    """Every acknowledged and committed record below the checkpoint is stored."""
    for generation, log in e.stream.logs.items():
        for coordinate in sorted(log.visible()):
            at = (generation, *coordinate)
            if _is_ours(e, generation, coordinate) and at not in e.staged and at not in e.dead:
                yield (
                    f"{_at(e, at)}: found nothing, expected the record that the broker acknowledged; the checkpoint "
                    f"is {e.checkpoints[generation, coordinate[0]]}"
                )


def no_lag(e: Evidence) -> Iterator[str]:
    """After the faults the drain reaches the last stable offset of every partition."""
    generation = max(e.stream.logs)
    for partition, end in sorted(e.stable_ends.items()):
        checkpoint = e.checkpoints.get((generation, partition), 0)
        if checkpoint < end:
            yield f"{_at(e, (generation, partition, checkpoint))}: lag left: checkpoint {checkpoint}, expected {end}"


CHECKS: dict[str, Check] = {
    "0 truths agree": truths_agree,
    "1 accounted once": accounted_once,
    "2 payload": payload,
    "2 attribution": attribution,
    "3 chain": chain,
    "3 counts": counts,
    "3 sequence": sequence,
    "3 stable end": stable_end,
    "3 closed generations": closed_generations,
    "4 no aborted record": no_aborted,
    "4 acknowledged present": acknowledged_present,
    "8 no lag": no_lag,
}


def _is_ours(e: Evidence, generation: int, coordinate: tuple[int, int]) -> bool:
    """Whether a record is below its generation's checkpoint and was not lost before it could be read."""
    partition, offset = coordinate
    if offset >= e.checkpoints.get((generation, partition), 0):
        return False
    return not any(p == partition and start <= offset < end for p, start, end in e.stream.logs[generation].lost)


def _is_gone(e: Evidence, generation: int, coordinate: tuple[int, int]) -> bool:
    partition, offset = coordinate
    return offset < e.stream.logs[generation].starts.get(partition, 0)


def _at(e: Evidence, at: Coordinate) -> str:
    generation, partition, offset = at
    return f"{e.stream.name}[{partition}] offset {offset} (generation {generation})"


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    return "; ".join(
        f"{name}: found {found[name]!r:.150}, expected {wanted[name]!r:.150}"
        for name in wanted
        if found[name] != wanted[name]
    )


def _dead_letter(record: Produced) -> dict[str, Any]:
    return {
        "key": record.key,
        "value": record.value,
        "headers": _headers(record.headers),
        "timestamp": EPOCH + timedelta(milliseconds=record.timestamp),
    }


def _row(record: Produced) -> dict[str, Any] | None:
    """The row that a record must become; None if it breaks the contract."""
    columns = _columns(record.key, record.value)
    if columns is None:
        return None
    return columns | {
        "_timestamp": EPOCH + timedelta(milliseconds=record.timestamp),
        "_key": record.key,
        "_headers": _headers(record.headers),
        "_deleted": record.value is None,
    }


@cache
def _columns(key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
    if key is None:
        return None
    try:
        name = key.decode()
        if value is None:
            if str(int(name)) != name or not -(2**63) <= int(name) < 2**63:
                return None
            return dict.fromkeys(JOB_COLUMNS) | {"jobidentifier": int(name), "_extra": None}
        job = decode_job(name, value.decode())
    except (ValueError, RecursionError):
        return None
    columns = {column: job.pop(column.upper()) for column in JOB_COLUMNS}
    return columns | {"_extra": json.loads(json.dumps(job, default=float)) or None}


def _headers(headers: Headers) -> list[dict[str, str | None]] | None:
    return [_header(name, value) for name, value in headers] or None


def _header(name: str, value: bytes | None) -> dict[str, str | None]:
    try:
        text = None if value is None else value.decode()
    except ValueError:
        text = "\0"
    if value is not None and "\0" in str(text):
        return {"key": name, "base64": b64encode(value).decode()}
    return {"key": name, "value": text}
