"""Loops in Python: the case's own, with a commit per record, and psycopg2's execute_values in thousands."""

import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from tests.benchmarks.site import COLUMNS, PEER_TABLE, Site, Speed

PAGE = 1_000
NAMES = ", ".join(name for name, _ in COLUMNS)


def commit_per_record(site: Site, records: int) -> Speed:
    """Insert and commit every record by itself, as the case's consumer does."""
    records = min(records, site.records)
    site.peer_table()
    statement = f"insert into {PEER_TABLE} ({NAMES}) values ({', '.join(['%s'] * len(COLUMNS))})"
    with psycopg2.connect(site.dsn) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        for row in _rows(site, records):
            cursor.execute(statement, row)
            connection.commit()
        return Speed(records, time.monotonic() - began)


def values_in_thousands(site: Site, records: int) -> Speed:
    """execute_values with page_size 1,000, and a commit for each page."""
    records = min(records, site.records)
    site.peer_table()
    statement = f"insert into {PEER_TABLE} ({NAMES}) values %s"
    with psycopg2.connect(site.dsn) as connection, connection.cursor() as cursor:
        began = time.monotonic()
        page: list[tuple[Any, ...]] = []
        for row in _rows(site, records):
            page.append(row)
            if len(page) == PAGE:
                execute_values(cursor, statement, page, page_size=PAGE)
                connection.commit()
                page.clear()
        if page:
            execute_values(cursor, statement, page, page_size=PAGE)
            connection.commit()
        return Speed(records, time.monotonic() - began)


def _rows(site: Site, records: int) -> Iterator[tuple[Any, ...]]:
    consumer = site.consumer()
    try:
        left = records
        while left:
            for polled in consumer.poll(timeout_ms=1_000, max_records=left).values():
                for record in polled:
                    job = json.loads(record.value)
                    yield tuple(job[name.upper()] for name, _ in COLUMNS)
                left -= len(polled)
    finally:
        consumer.close()
