"""The scenarios of marts are checked: seeded bugs in copies of the package, each of which a scenario has to catch.

make mutants                                all, the loader's and the package's
make mutants MUTANT='no old images'         one of them
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.settings import Settings
from tests.faults.mart_mutants import MART_MUTANTS, MartMutant
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine
from tests.faults.test_mutants import ONLY
from tests.support.databases import passing_database
from tests.support.mart_scenarios import QUICK, SLOW
from tests.support.mart_site import Site
from tests.support.random_project import PACKAGE, RandomProject
from tests.support.warehouse import Warehouse


@pytest.fixture(scope="module")
def postgres() -> Iterator[Servers]:
    """Postgres alone, and a migrated database to copy."""
    servers = Servers(("postgres",))
    try:
        servers.start()
        dsn = servers.database("migrated")
        initialise(Deployment.from_settings(Settings(home=servers.home, postgres_dsn=dsn)))
        yield servers
    finally:
        servers.close()


@pytest.mark.faults
@pytest.mark.parametrize("mutant", MART_MUTANTS, ids=lambda mutant: mutant.name)
def test_mart_mutant_is_caught_by_a_scenario(
    mutant: MartMutant, postgres: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    if ONLY not in (None, mutant.name):
        pytest.skip(f"{ONLY} is asked for")
    package = tmp_path / "headrace_dbt"
    shutil.copytree(PACKAGE, package)
    mutant.apply(package)
    number = MART_MUTANTS.index(mutant)
    with passing_database(postgres.address("postgres"), f"mutant_{number}", template="migrated") as dsn:
        warehouse = Warehouse(Settings(home=tmp_path, postgres_dsn=dsn), dsn)
        site = Site(RandomProject(tmp_path / "project", warehouse, (), package))
        site.start()  # a package that cannot build at all says nothing of the scenarios
        for scenario in mutant.scenarios:
            try:
                scenario(site)
            except AssertionError as caught:
                message = " ".join(str(caught).split())
                print_line(f"{mutant.name:<40} {scenario.__name__:<28} {message[:240]}")
                return
    raise AssertionError(f"{mutant.name}: {mutant.why}: no scenario caught it")


@pytest.mark.faults
@pytest.mark.skipif(ONLY is not None, reason="one mutant is asked for")
def test_package_as_it_is_passes_every_scenario(postgres: Servers, tmp_path: Path) -> None:
    with passing_database(postgres.address("postgres"), "control", template="migrated") as dsn:
        warehouse = Warehouse(Settings(home=tmp_path, postgres_dsn=dsn), dsn)
        site = Site(RandomProject(tmp_path / "project", warehouse, ()))
        site.start()
        site.play((*QUICK, *SLOW))


@pytest.mark.parametrize("mutant", MART_MUTANTS, ids=lambda mutant: mutant.name)
def test_mart_mutant_fits_the_package_as_it_is(mutant: MartMutant) -> None:
    assert mutant.changed(PACKAGE)
