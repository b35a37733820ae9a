"""Absent entities: earlier files named them and the newest one does not. They are counted, or tombstoned."""

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.rejection import Rejection
from headrace.dataset import Dataset
from headrace.exceptions import CheckpointMoved, DatasetError
from headrace.ingest.field_contract import field_contract
from headrace.postgres import checkpoints, ledger, staging
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.copy import check_stored, copy_rows
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.sources.base import Range, Source

MAX_REMOVED = 10.0  # percent of the entities that a file may remove by default
KEYS = Identifier("pg_temp", "surveyed_keys")


@dataclass(slots=True)
class EntitySurvey:
    """How a file differs from a dataset's entities, before it is loaded.

    existing: live entities. removed: live entities that no line names. invalid: lines that become dead letters; the
    entities whose keys they name are kept. undecided: invalid lines whose key cannot be read. Each of these may belong
    to any absent entity, so a single one keeps all entities.
    """

    valid: int = 0
    invalid: int = 0
    undecided: int = 0
    existing: int = 0
    removed: int = 0
    named_by_invalid: set[Any] = field(default_factory=set)
    first_problem: str = ""

    def note_invalid(self, rejection: Rejection, key: Any) -> None:
        """Count a line that becomes a dead letter; key: None if it cannot be read."""
        self.invalid += 1
        self.first_problem = self.first_problem or rejection.detail
        if key is None:
            self.undecided += 1
        else:
            self.named_by_invalid.add(key)

    def check(self, dataset: Dataset, path: Path, max_removed: float) -> None:
        """Raise DatasetError if the file must not replace the earlier ones."""
        if not self.valid:
            found = f"{self.invalid} invalid lines, the first: {self.first_problem}" if self.invalid else "no record"
            raise DatasetError(
                f"{path}: found {found}, expected at least one valid record to replace the earlier files; nothing was "
                "loaded; without --replace it is merged and removes nothing"
            )
        if not self.undecided:
            check_removed(dataset, self.removed, self.existing, max_removed, "nothing was loaded")


def check_removed(dataset: Dataset, removed: int, existing: int, max_removed: float, effect: str) -> None:
    """Raise DatasetError when more than max_removed percent of the entities would be removed."""
    if removed * 100 > existing * max_removed:
        needed = -(-removed * 100 // existing)  # rounded up
        raise DatasetError(
            f"{dataset.name}: --replace would remove {removed} of {existing} ({removed / existing:.1%}), expected at "
            f"most {max_removed:g}%; {effect}; if the file is right, add --max-removed {needed}%"
        )


def survey(connection: Connection[Any], dataset: Dataset, source: Source, bounds: Range) -> EntitySurvey:
    """Read a file and compare its keys with the live entities; change nothing.

    Raises DatasetError for a dataset without a key.
    """
    key, index = _key(dataset)
    found = EntitySurvey()
    contract = field_contract(dataset, key)
    # a document's key as the contract decodes it, after validators, may differ from the key in its text
    is_unwrapped = bool(dataset.contract.__pydantic_decorators__.model_validators)
    with connection.transaction(force_rollback=True):
        connection.execute(SQL("create temporary table {} (key {})").format(KEYS, SQL(key.sql_type)))
        with closing(source.read({0: bounds})) as chunks:
            for chunk in chunks:
                keys: list[list[Any]] = []
                for record in chunk.records:
                    broken: Rejection | None = getattr(record, "rejection", None)
                    decoded = broken or dataset.compiled.decode(record.key, record.value, record.headers)
                    if isinstance(decoded, Rejection):
                        may_tell = not broken and not is_unwrapped
                        found.note_invalid(decoded, _read_key(record.value, contract) if may_tell else None)
                    else:
                        keys.append([decoded[index]])
                found.valid += len(keys)
                with connection.cursor() as cursor:
                    copy_rows(cursor, KEYS, [("key", key.sql_type)], keys)
        counted = connection.execute(
            SQL(
                "select count(*), count(*) filter (where live.{key} <> all(%s::{type}[]) and not exists "
                "(select from {keys} as named where named.key = live.{key})) from ({live}) as live"
            ).format(key=Identifier(key.name), type=SQL(key.sql_type), keys=KEYS, live=_live(dataset)),
            (list(found.named_by_invalid),),
        ).fetchone()
    assert counted is not None
    found.existing, found.removed = counted
    return found


def _read_key(value: bytes | None, contract: Contract) -> Any:
    """The key of a record whose other fields may break the contract; None if it cannot be read."""
    decoded = contract.decode(None, value)  # a contract of the key only: all other fields are extra
    return None if isinstance(decoded, Rejection) else decoded[0]


def _key(dataset: Dataset) -> tuple[Column, int]:
    for index, column in enumerate(dataset.compiled.columns):
        if column.name == dataset.key_column:
            return column, index
    if dataset.key_fields:
        raise DatasetError(f"{dataset.name}: has a key of several fields, expected one; leave --replace out")
    raise DatasetError(f"{dataset.name}: has no key, expected one to find absent entities; omit --replace")


def count_absent(
    connection: Connection[Any], dataset: Dataset, generation: int, named_by_invalid: Collection[Any] = ()
) -> int:
    """How many live entities the file of a generation does not name; 0 for a dataset without a key."""
    if dataset.key_column is None:
        return 0
    absent = _absent(dataset, generation, named_by_invalid)
    row = connection.execute(SQL("select count(*) from ({}) as missing").format(absent)).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A load's committed part: its generation up to an end, and the survey of its file."""

    generation: int
    end: int
    surveyed: EntitySurvey


def tombstone_absent(
    connection: Connection[Any], dataset: Dataset, loaded: LoadedFile, max_removed: float, run: RunContext
) -> int:
    """Tombstone the absent entities in a batch after the file's last line; return their number.

    The caller holds the dataset (`checkpoints.hold`). Raises CheckpointMoved if another load began a generation
    since: nearly all entities would be absent from that one.
    """
    generation, end, surveyed = loaded.generation, loaded.end, loaded.surveyed
    found = Checkpoints(connection, dataset.name).open_generation()
    if found is None or found.generation != generation or found.next_offsets[0] < end:
        newest = "none is open" if found is None else f"generation {found.generation} is at {found.next_offsets[0]}"
        raise CheckpointMoved(
            f"{dataset.name}: {newest}, this load committed generation {generation} up to {end}: another load began "
            "meanwhile; the file was merged, nothing was tombstoned; run the same command again",
            dataset=dataset.name,
            generation=generation,
        )
    absent = count_absent(connection, dataset, generation, surveyed.named_by_invalid)
    if not absent:
        return 0
    row = connection.execute(SQL("select count(*) from ({}) as live").format(_live(dataset))).fetchone()
    assert row is not None
    check_removed(dataset, absent, int(row[0]), max_removed, "the file was merged, nothing was tombstoned")
    start = found.next_offsets[0]
    line = LedgerLine(
        batch_id=ledger.new_batch_id(),
        dataset=dataset.name,
        generation=generation,
        partition=0,
        start_offset=start,
        end_offset=start + absent,
        kind=LedgerKind.REPLACE,
        tombstones=absent,
        run=run,
        note=f"--replace removed {absent} of {row[0]}",
    )
    checkpoints.advance(connection, line)
    _insert_tombstones(connection, dataset, line, _absent(dataset, generation, surveyed.named_by_invalid))
    ledger.append_line(connection, line)
    return absent


def _insert_tombstones(connection: Connection[Any], dataset: Dataset, line: LedgerLine, absent: Composed) -> None:
    key, _ = _key(dataset)
    stored = connection.execute(
        SQL(
            "insert into {table} ({key}, _generation, _partition, _offset, _deleted, _batch_id) "
            "select {key}, %s, 0, %s + row_number() over (order by {key}) - 1, true, %s from ({missing}) as missing"
        ).format(
            table=staging.table(dataset),
            key=Identifier(key.name),
            missing=absent,
        ),
        (line.generation, line.start_offset, line.batch_id),
    ).rowcount
    check_stored(staging.table(dataset), line.tombstones, stored)


def _live(dataset: Dataset) -> Composed:
    """The entities whose newest version is not a tombstone, each with that version's generation."""
    key, _ = _key(dataset)
    return SQL(
        "select {key}, _generation from ("
        " select distinct on ({key}) {key}, _generation, _deleted from {table} where {key} is not null"
        " order by {key}, _generation desc, _offset desc"
        ") as newest where not _deleted"
    ).format(key=Identifier(key.name), table=staging.table(dataset))


def _absent(dataset: Dataset, generation: int, named_by_invalid: Collection[Any]) -> Composed:
    # an entity's newest version is from an older generation than the file's, and no invalid line of the file names it
    key, _ = _key(dataset)
    return SQL(
        "select {key} from ({live}) as live where _generation < {generation} and {key} <> all({named}::{type}[])"
    ).format(
        key=Identifier(key.name),
        live=_live(dataset),
        generation=generation,
        named=list(named_by_invalid),
        type=SQL(key.sql_type),
    )
