"""JSON log lines, one object each, for HEADRACE_LOG_FORMAT=json: every batch and drain, and whatever else is logged.

The `headrace` command writes them to stderr. Airflow's tasks write into the task's log, which is JSON lines anyway.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.masking import mask

if TYPE_CHECKING:
    from headrace.checkpoints import LedgerLine
    from headrace.drain import DrainResult
    from headrace.plan import Plan
    from headrace.settings import Settings

logger = logging.getLogger("headrace")

FIELDS = "headrace_fields"  # what a LogRecord holds beside its message


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: timestamp (UTC, ISO 8601), level, event, logger, then its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **fields_of(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return mask(json.dumps(document, default=str, ensure_ascii=False))


def configure(settings: "Settings") -> None:
    """Let this process write what Headrace logs to stderr as JSON lines; nothing changes for text."""
    if settings.log_format != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    use(handler)


def use(handler: logging.Handler) -> None:
    """Give all that Headrace logs, from INFO on, to this handler alone."""
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """The record's own fields; none for most."""
    fields: Mapping[str, Any] = getattr(record, FIELDS, {})
    return fields


def refused(message: str) -> bool:
    """Log why a command failed; False, and nothing is written, where logs are text."""
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in logger.handlers):
        return False
    logger.error(message)
    return True


class Journal:
    """What a drain says of its batches and of its end; silent where logs are text."""

    def __init__(self, settings: "Settings") -> None:
        self._is_json = settings.log_format == "json"

    def batch(self, line: "LedgerLine", seq: int, seconds: float) -> None:
        """A batch is committed; seq is its number in the ledger, seconds since its first record was asked for."""
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
            bytes=line.bytes,
            seconds=round(seconds, 3),
        )

    def end(self, plan: "Plan", result: "DrainResult", error: BaseException | None = None) -> None:
        """A drain, or a worker's share of one, is over; with `error`, before it read all that was planned."""
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
            bytes=result.bytes,
            seconds=round(result.seconds, 3),
            **({} if error is None else {"error": " ".join(str(error).split())}),
        )

    def _write(self, level: int, event: str, **fields: Any) -> None:
        if self._is_json:
            logger.log(level, event, extra={FIELDS: fields})
