"""JSON log lines, one object each, for HEADRACE_LOG_FORMAT=json: batches, drains, and all other log records.

The `headrace` command writes them to stderr, Airflow's tasks to the task's log. Neither JSON nor text lines contain a
secret or an invisible character.
"""

import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from headrace.output import complain, shown, traceback_lines

if TYPE_CHECKING:
    from headrace.settings import Settings

logger = logging.getLogger("headrace")

FIELDS = "headrace_fields"  # the attribute of a LogRecord that holds its fields


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: timestamp (UTC, ISO 8601), level, event, logger, then its own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's JSON document, in one line."""
        event, fields = event_of(record)
        document = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": event,
            "logger": record.name,
            **fields,
        }
        return json.dumps(document, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record as its message, in one line, followed by the indented lines of its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        event, fields = event_of(record)
        return f"{event}\n{fields['exception']}" if "exception" in fields else event


def guard() -> None:
    """Mask and escape also what this process logs without a handler, its warnings, and an uncaught exception."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(TextFormatter())
    warnings.formatwarning = _format_warning
    sys.excepthook = _say_exception
    threading.excepthook = lambda ended: _say_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)


def configure(settings: "Settings") -> None:
    """Write this process's log records to stderr as JSON lines; no effect if the format is text."""
    if settings.log_format != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    use(handler)


def use(handler: logging.Handler) -> None:
    """Send Headrace's log records from INFO on to this handler only."""
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def event_of(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """A record's message and fields, masked and escaped; the field `exception` is its traceback."""
    fields: dict[str, Any] = _shown(getattr(record, FIELDS, {}))
    if record.exc_info:
        fields["exception"] = traceback_lines(logging.Formatter().formatException(record.exc_info))
    return shown(record.getMessage()), fields


def _shown(value: Any) -> Any:
    """A JSON value with its texts masked and escaped; the text of any other object."""
    if isinstance(value, Mapping):
        return {shown(str(name)): _shown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return shown(str(value))


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return shown(f"{filename}:{lineno}: {category.__name__}: {message}") + "\n"


def _say_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    complain(f"headrace: unexpected {kind.__name__}: {error}")
    print(traceback_lines("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr)


def refused(message: str) -> bool:
    """Log why a command failed; returns False and writes nothing if logs are text."""
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in logger.handlers):
        return False
    logger.error(message)
    return True
