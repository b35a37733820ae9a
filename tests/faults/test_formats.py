"""`make formats`: a long topic of each format, written by a second client, drained exactly once under kills.

make formats                                     all formats: a million records, of Protobuf 200,000
make formats FORMAT=avro RECORDS=20000 SEED=5    one of them, shorter, repeatable
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.format_runs import KILLS, RunOptions, run_format
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine
from tests.support.format_writers import CASES

SEED = int(os.environ.get("FORMATS_SEED") or random.randrange(100_000))
RECORDS = int(os.environ.get("FORMATS_RECORDS") or 0)
ONLY = os.environ.get("FORMATS_ONLY") or None


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Postgres, a broker and a registry."""
    servers = Servers(("postgres", "kafka", "registry"))
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.mark.faults
@pytest.mark.parametrize("name", CASES)
def test_format_is_drained_exactly_once_under_kills(
    name: str, servers: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    assert ONLY is None or ONLY in CASES, f"FORMAT: found {ONLY!r}, expected one of {', '.join(CASES)}"
    if ONLY not in (None, name):
        pytest.skip(f"{ONLY} is asked for")
    case = CASES[name]
    options = RunOptions(RECORDS or case.records, SEED)
    print_line(f"\n{name}: {options.records:,} records, seed {SEED}")
    found = run_format(servers, tmp_path, case, options, print_line)
    print_line(
        f"{name}: {found.staged:,} staged, {found.dead:,} dead letters, {found.tombstones:,} tombstones; "
        f"{found.kills} kills; {found.in_extra:,} rows by the older contract, {found.in_column:,} by the newer"
    )
    assert found.kills >= KILLS // 2
    if case.has_schemas:
        ids = [number for (number,) in map(tuple, found.schema_ids.values())]  # one id for each schema
        assert len(set(ids)) == 3
        assert None not in ids
    if not case.is_text:
        assert found.in_extra and found.in_column
