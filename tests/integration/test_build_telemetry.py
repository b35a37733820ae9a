"""marts.telemetry: readings that are sent twice, and the thresholds that it was built with."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from headrace.exceptions import BuildError
from tests.support.warehouse import Warehouse, reading, shared_warehouse

TELEMETRY = ["telemetry", "telemetry_per_minute"]


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Everything is built on nothing: no record is staged."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    return warehouse


def degraded(warehouse: Warehouse) -> list[tuple[str, bool]]:
    return warehouse.query("select event_id, is_degraded from marts.telemetry order by 1")


def test_reading_that_is_sent_twice_counts_once_and_a_late_one_corrects_its_bucket(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(71)), (1, "R1", reading(3)), (2, "R2", reading(0.1, minute=1)))
    warehouse.build(select=TELEMETRY)
    warehouse.assert_right(*TELEMETRY)
    assert degraded(warehouse) == [("R1", True), ("R2", False)]
    warehouse.telemetry((3, "R3", reading(0.2)), (4, "R4", reading(0.7)), (5, "R2", reading(0.1, minute=1)))
    result = warehouse.build(select=TELEMETRY)
    warehouse.assert_right(*TELEMETRY)
    assert result.rows == 2 + 1  # two readings and their bucket


def test_other_threshold_is_refused_until_a_full_refresh_of_what_it_feeds(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(60)), (1, "R2", reading(75)))
    warehouse.build(select=TELEMETRY)
    lower = replace(warehouse, settings=replace(warehouse.settings, threshold_humidity=Decimal("59.5")))
    try:
        # asked for at once, though nothing new was staged
        with pytest.raises(BuildError, match=r'marts.telemetry: found .*"humidity": 59.5.*--select telemetry\+'):
            lower.build()
        assert degraded(warehouse) == [("R1", False), ("R2", True)]
        lower.build(select="telemetry+", full_refresh=True)
        assert degraded(warehouse) == [("R1", True), ("R2", True)]
        assert warehouse.query("select readings, degraded from marts.telemetry_per_minute") == [(2, 2)]
        warehouse.telemetry((2, "R3", reading(59.6)))
        lower.build()
        assert warehouse.query("select readings, degraded from marts.telemetry_per_minute") == [(3, 3)]
        with pytest.raises(BuildError, match=r'"humidity": 70.*--select telemetry\+'):
            warehouse.build()
    finally:
        warehouse.build(select="telemetry+", full_refresh=True)
    warehouse.assert_right(*TELEMETRY)


def test_added_kpi_is_degraded_only_where_it_has_a_threshold(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(1e6, "noise")), (1, "R2", reading(901, "co2-level")))
    warehouse.build(select=TELEMETRY)
    assert degraded(warehouse) == [("R1", False), ("R2", False)]
    thresholds = {"HEADRACE_THRESHOLD_CO2_LEVEL": Decimal(900)}
    settings = replace(warehouse.settings, telemetry_kpis=("noise", "co2-level"), added_thresholds=thresholds)
    extended = replace(warehouse, settings=settings)
    try:
        with pytest.raises(BuildError, match=r'marts.telemetry: found .*"co2-level": 900.*--select telemetry\+'):
            extended.build()
        extended.build(select="telemetry+", full_refresh=True)
        assert degraded(warehouse) == [("R1", False), ("R2", True)]
    finally:
        warehouse.build(select="telemetry+", full_refresh=True)


def test_threshold_written_otherwise_is_the_same(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(60)))
    warehouse.build(select=TELEMETRY)
    same = replace(warehouse, settings=replace(warehouse.settings, threshold_humidity=Decimal("7.00e1")))
    warehouse.telemetry((1, "R2", reading(75)))
    same.build(select=TELEMETRY)
    warehouse.assert_right(*TELEMETRY)
