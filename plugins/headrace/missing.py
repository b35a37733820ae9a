"""Entities that earlier files named and the newest one does not: kept and counted, or tombstoned."""

from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from headrace import checkpoints, staging
from headrace.checkpoints import LedgerLine, RunContext
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError


def count_missing(connection: Connection[Any], dataset: Dataset) -> int:
    """How many live entities the newest file does not name; 0 for a dataset without a key."""
    if dataset.key_column is None:
        return 0
    row = connection.execute(SQL("select count(*) from ({}) as missing").format(_missing(dataset))).fetchone()
    return int(row[0]) if row else 0


def replace_missing(connection: Connection[Any], dataset: Dataset, run: RunContext) -> int:
    """Tombstone them, as lines behind the file's last one: a batch of its own; return how many there were.

    The caller holds the dataset (`checkpoints.hold`), so that nobody is loaded between counting and writing.
    """
    if dataset.key_column is None:
        raise DatasetError(f"{dataset.name}: has no key, expected one to tell who is missing; leave --replace out")
    generation = checkpoints.open_generation(connection, dataset.name)
    missing = count_missing(connection, dataset)
    if generation is None or not missing:
        return 0
    start = generation.next_offsets[0]
    line = LedgerLine(
        batch_id=checkpoints.new_batch_id(),
        dataset=dataset.name,
        generation=generation.generation,
        partition=0,
        start_offset=start,
        end_offset=start + missing,
        kind="load",
        tombstones=missing,
        run=run,
    )
    checkpoints.advance(connection, line)
    stored = connection.execute(
        SQL(
            "insert into {table} ({key}, _generation, _partition, _offset, _deleted, _batch_id) "
            "select {key}, %s, 0, %s + row_number() over (order by {key}) - 1, true, %s from ({missing}) as missing"
        ).format(table=staging.table(dataset), key=Identifier(dataset.key_column), missing=_missing(dataset)),
        (generation.generation, start, line.batch_id),
    ).rowcount
    staging.check_stored(staging.table(dataset), missing, stored)
    checkpoints.append_line(connection, line)
    return missing


def _missing(dataset: Dataset) -> Composed:
    # an entity's newest line is in an older generation than the open one, and is no tombstone
    assert dataset.key_column is not None
    return SQL(
        "select newest.{key} from ("
        " select distinct on ({key}) {key}, _generation, _deleted from {table} where {key} is not null"
        " order by {key}, _generation desc, _offset desc"
        ") as newest "
        "where not newest._deleted and newest._generation < ("
        " select generation from headrace.generations where dataset = {dataset} and is_open)"
    ).format(key=Identifier(dataset.key_column), table=staging.table(dataset), dataset=dataset.name)
