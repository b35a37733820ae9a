"""The log lines of a drain's batches and end, when logs are JSON."""

import logging
from typing import Any

from headrace.exceptions import HeadraceError
from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.logs import FIELDS
from headrace.postgres.ledger import LedgerLine
from headrace.settings import Settings

logger = logging.getLogger("headrace")


class Journal:
    """Logs a drain's batches and its end; silent when logs are text."""

    def __init__(self, settings: Settings) -> None:
        self._is_json = settings.log_format == "json"

    def batch(self, line: LedgerLine, seq: int, seconds: float) -> None:
        """Log a committed batch; seq: its ledger line's number; seconds: since the batch began."""
        self._write(
            logging.INFO,
            "batch committed",
            dataset=line.dataset,
            kind=line.kind,
            batch_id=str(line.batch_id),
            seq=seq,
            generation=line.generation,
            partition=line.partition,
            start_offset=line.start_offset,
            end_offset=line.end_offset,
            staged=line.staged,
            dead=line.dead,
            tombstones=line.tombstones,
            empty=line.empty,
            ignored=line.ignored,
            bytes=line.bytes,
            seconds=round(seconds, 3),
            **({} if line.elements is None else {"elements": dict(line.elements)}),
        )

    def end(self, plan: Plan, result: DrainResult, error: BaseException | None = None) -> None:
        """Log the end of a drain or of one process's share; error: why it failed."""
        self._write(
            logging.INFO if error is None else logging.ERROR,
            "drain ended" if error is None else "drain failed",
            dataset=result.dataset,
            generation=plan.generation,
            batches=result.batches,
            next_offsets={str(partition): offset for partition, offset in sorted(result.next_offsets.items())},
            staged=result.staged,
            dead=result.dead,
            tombstones=result.tombstones,
            empty=result.empty,
            ignored=result.ignored,
            bytes=result.bytes,
            seconds=round(result.seconds, 3),
            **({} if error is None else _of_error(error)),
        )

    def _write(self, level: int, event: str, **fields: Any) -> None:
        if self._is_json:
            logger.log(level, event, extra={FIELDS: fields})


def _of_error(error: BaseException) -> dict[str, Any]:
    """An error's message, and the partition and offset that it is about, where it names them."""
    where = {"partition": error.partition, "offset": error.offset} if isinstance(error, HeadraceError) else {}
    known = {name: value for name, value in where.items() if value is not None}
    return {"error": " ".join(str(error).split()), **known}
