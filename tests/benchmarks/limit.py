"""The limit: a prebuilt COPY of a dataset's rows into its own table."""

import time

from psycopg.sql import SQL, Identifier

from tests.benchmarks.site import Site, Speed

BATCH_ROWS = 20_000  # HEADRACE_BATCH_ROWS as it is set by default: as many lie between two commits of the limit
COPY_BYTES = 256 * 1024


class Limit:
    """COPY of the staging table's own text, as fast as one connection takes it, committed as often as a drain does."""

    def __init__(self, site: Site, dataset: str) -> None:
        table = Identifier("staging", dataset)
        with site.connect() as connection, connection.cursor().copy(SQL("copy {} to stdout").format(table)) as copy:
            lines = [bytes(line) for line in copy]
        self._batches = [lines[start : start + BATCH_ROWS] for start in range(0, len(lines), BATCH_ROWS)]
        self._statement = SQL("copy {} from stdin").format(table)

    def copy(self, site: Site) -> Speed:
        """Fill the table, which is empty."""
        batches = [_pieces(b"".join(batch)) for batch in self._batches]
        site.settle()
        with site.connect() as connection, connection.cursor() as cursor:
            began = time.monotonic()
            for pieces in batches:
                with connection.transaction(), cursor.copy(self._statement) as copy:
                    for piece in pieces:
                        copy.write(piece)
            return Speed(sum(map(len, self._batches)), time.monotonic() - began)


def _pieces(text: bytes) -> list[bytes]:
    return [text[start : start + COPY_BYTES] for start in range(0, len(text), COPY_BYTES)]
