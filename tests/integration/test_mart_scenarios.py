"""Builds of marts in the orders of commits, locks and kills that a wrong materialization gets wrong."""

from tests.support.mart_scenarios import SCENARIOS
from tests.support.mart_site import Site
from tests.support.random_project import RandomProject


def test_marts_after_every_scenario_equal_their_selects(project: RandomProject) -> None:
    site = Site(project)
    site.start()
    for scenario in SCENARIOS:
        try:
            scenario(site)
        except Exception as error:
            error.add_note(f"scenario {scenario.__name__}")
            raise
