"""What kafka-python logs, once per cause: it writes four lines for every attempt to connect, several a second."""

import logging
import time

CLIENT = "kafka"  # the logger above all of kafka-python's
AGAIN_S = 60.0  # a cause that lasts is written once in so long
CAUSES_MAX = 100

logger = logging.getLogger(__name__)


def once_per_cause() -> None:
    """Let warnings and errors of kafka-python pass once per cause, and nothing below; idempotent.

    A deployment that gave its logger a level or a handler keeps what it chose.
    """
    client = logging.getLogger(CLIENT)
    if client.level == logging.NOTSET and not client.handlers:
        client.setLevel(logging.WARNING)
        client.propagate = False
        client.addHandler(OncePerCause())


class OncePerCause(logging.Handler):
    """Hands a record on to our own logger unless its error, or where it has none its kind, was just written."""

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
        # never more than information: what fails says so itself, in one line, and names the broker
        logger.info("kafka-python: %s", " ".join(record.getMessage().split()))
