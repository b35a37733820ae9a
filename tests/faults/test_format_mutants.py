"""The fuzz of formats is checked: seeded bugs in copies of the loader, each of which `make fuzz` has to find.

make mutants                                all, of loader, marts and formats
make mutants MUTANT='nanoseconds cut off'   one of them
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.format_mutants import FORMAT_MUTANTS, FormatMutant
from tests.faults.loaders import ROOT
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine
from tests.faults.test_mutants import ONLY, SEED

RECORDS = 2_000
LIMIT_S = 600


@pytest.fixture(scope="module")
def registry_servers() -> Iterator[Servers]:
    """Postgres, a broker and a registry."""
    servers = Servers(("postgres", "kafka", "registry"))
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


def _fuzzed(servers: Servers, plugins: Path, format: str, name: str) -> subprocess.CompletedProcess[str]:
    """`make fuzz` of a format with a copy of the loader."""
    addresses = (servers.database(name), servers.address("kafka"), servers.address("registry"))
    command = ("-m", "tests.support.fuzz_drain", "--format", format, "--records", str(RECORDS), "--seed", str(SEED))
    return subprocess.run(
        [sys.executable, *command, "--prefix", f"{name}-", "--services", *addresses],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(plugins)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def _copied(folder: Path) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(ROOT / "plugins", plugins, ignore=shutil.ignore_patterns("__pycache__", ".grimp_cache"))
    return plugins


@pytest.mark.faults
@pytest.mark.parametrize("mutant", FORMAT_MUTANTS, ids=lambda mutant: mutant.name)
def test_format_mutant_is_caught_by_the_fuzz(
    mutant: FormatMutant, registry_servers: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    if ONLY not in (None, mutant.name):
        pytest.skip(f"{ONLY} is asked for")
    plugins = _copied(tmp_path)
    mutant.apply(plugins)
    done = _fuzzed(registry_servers, plugins, mutant.format, f"mutant_{FORMAT_MUTANTS.index(mutant)}")
    # by the oracle: a loader that crashes says nothing of it
    assert done.returncode == 1 and f"fuzz: seed {SEED}: " in done.stderr, f"{mutant.why}: {done.stdout}{done.stderr}"
    message = done.stderr.partition(f"fuzz: seed {SEED}: ")[2].splitlines()[0]
    print_line(f"{mutant.name:<46} {mutant.format:<20} {message[:240]}")


@pytest.mark.faults
@pytest.mark.skipif(ONLY is not None, reason="one mutant is asked for")
@pytest.mark.parametrize("format", sorted({mutant.format for mutant in FORMAT_MUTANTS}))
def test_loader_as_it_is_passes_the_fuzz(format: str, registry_servers: Servers, tmp_path: Path) -> None:
    done = _fuzzed(registry_servers, _copied(tmp_path), format, f"control_{format}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", FORMAT_MUTANTS, ids=lambda mutant: mutant.name)
def test_format_mutant_fits_the_loader_as_it_is(mutant: FormatMutant) -> None:
    for text in mutant.changed(ROOT / "plugins").values():
        ast.parse(text)
