"""Builds of marts in the orders of commits, locks and kills that a wrong materialization gets wrong.

The slow ones are with their mutants: tests/faults/test_mart_mutants.py.
"""

from tests.support.mart_scenarios import QUICK
from tests.support.mart_site import Site
from tests.support.random_project import RandomProject


def test_marts_after_every_scenario_equal_their_selects(project: RandomProject) -> None:
    site = Site(project)
    site.start()
    site.play(QUICK)
