"""kafka-python's log, once per cause: it writes four lines per connection attempt, several times a second."""

import logging
import time

CLIENT = "kafka"  # the parent of kafka-python's loggers
AGAIN_S = 60.0  # the interval at which a lasting cause is logged again
CAUSES_MAX = 100

logger = logging.getLogger(__name__)


def once_per_cause() -> None:
    """Log kafka-python's warnings and errors once per cause, and nothing below; idempotent.

    If a deployment has set a level or a handler for its logger, that stays.
    """
    client = logging.getLogger(CLIENT)
    if client.level == logging.NOTSET and not client.handlers:
        client.setLevel(logging.WARNING)
        client.propagate = False
        client.addHandler(OncePerCause())


class OncePerCause(logging.Handler):
    """Passes a record to Headrace's logger unless its error, or without one its kind, was just logged."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop it."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        error = next((argument for argument in arguments if isinstance(argument, BaseException)), None)
        cause = record.msg if error is None else f"{type(error).__name__}: {error}"
        now = time.monotonic()
        if now - self._written.get(str(cause), -AGAIN_S) < AGAIN_S:
            return
        if len(self._written) >= CAUSES_MAX:
            self._written.clear()
        self._written[str(cause)] = now
        # at most INFO: the failing call reports the error itself, in one line with the broker's address
        logger.info("kafka-python: %s", " ".join(record.getMessage().split()))
