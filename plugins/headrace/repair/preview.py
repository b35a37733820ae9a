"""What a replay would do with one dead letter, by today's contract; nothing is written.

It runs in a process of its own (`python -m headrace.repair.preview`): a contract's code may take forever, or hold
Python's lock, and the caller serves others.
"""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

from headrace.catalog import load_declaration
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError, HeadraceError
from headrace.ingest.batch import Batch
from headrace.output import shown
from headrace.postgres import staging
from headrace.postgres.dead_letter_pages import DeadLetter
from headrace.postgres.dead_letters import COLUMNS
from headrace.settings import Settings

TIMEOUT_S = 20.0
CELL_LENGTH_MAX = 1000
REASON, DETAIL, PATH = ([name for name, _ in COLUMNS].index(name) for name in ("reason", "detail", "json_path"))

Outcome = Literal["staged", "tombstone", "ignored", "rejected"]


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of decoding a dead letter again. row: its columns and values as text, of an accepted one.

    elements: rows in the tables of the children. reason, detail and json_path: why it is still rejected. Postgres's own
    checks, such as those of an index, are not made.
    """

    outcome: Outcome
    row: tuple[tuple[str, str | None], ...] = ()
    elements: int = 0
    reason: str | None = None
    detail: str | None = None
    json_path: str | None = None


def preview(dataset: Dataset, dead_letter: DeadLetter) -> Preview:
    """Decode a dead letter by the dataset's contract, as a replay does."""
    batch = Batch(dataset, dead_letter.generation, dead_letter.partition, dead_letter.offset)
    batch.add(dead_letter)
    if batch.dead:
        (row,) = batch.dead
        return Preview("rejected", reason=row[REASON], detail=row[DETAIL], json_path=row[PATH])
    if not batch.rows:
        return Preview("ignored")
    batch.decode_by_contract()  # the fast path makes a line of text
    names = [name for name, _ in staging.columns(dataset)]
    cells = tuple((name, _text(value)) for name, value in zip(names, batch.rows[0], strict=True) if name != "_batch_id")
    elements = sum((batch.element_counts or {}).values())
    return Preview("tombstone" if batch.tombstones else "staged", cells, elements)


def preview_apart(settings: Settings, dataset: str, dead_letter: DeadLetter) -> Preview:
    """The same in another process, which is killed after TIMEOUT_S.

    Raises DatasetError for a declaration that cannot be used, or that takes longer.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.repair.preview"],
            input=pickle.dumps((settings, dataset, dead_letter)),
            capture_output=True,
            timeout=TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise DatasetError(
            f"{dataset}: the contract decided nothing in {TIMEOUT_S:.0f} s, expected a row or a reason; correct its "
            "validators"
        ) from error
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        said = " ".join(done.stderr.decode(errors="replace").split())[-500:]
        raise DatasetError(f"{dataset}: the contract's process ended with {done.returncode}: {shown(said)}") from error
    if "error" in found:
        raise DatasetError(found["error"])
    return Preview(**found | {"row": tuple((name, text) for name, text in found["row"])})


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value.hex(" ") if isinstance(value, bytes) else str(value)
    return text if len(text) <= CELL_LENGTH_MAX else f"{text[:CELL_LENGTH_MAX]}…"


def main() -> None:
    """Read a pickled request from stdin, and write the result as JSON."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a contract may print
    settings, name, dead_letter = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent process wrote it
    settings.mask_secrets()
    try:
        dataset = load_declaration(settings.datasets_dir, name).connected(settings)
        found = preview(dataset, dead_letter)
        document = {each: getattr(found, each) for each in Preview.__dataclass_fields__}
    except HeadraceError as error:
        document = {"error": " ".join(str(error).split())}
    with out:
        json.dump(document, out)


if __name__ == "__main__":
    main()
