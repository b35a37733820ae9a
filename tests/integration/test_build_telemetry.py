"""marts.telemetry: readings that are sent twice, and the thresholds that it was built with."""

from dataclasses import replace
from decimal import Decimal

from tests.support.mart_rows import reading
from tests.support.warehouse import Warehouse

TELEMETRY = ["telemetry", "telemetry_per_minute"]


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


def test_other_threshold_computes_all_readings_and_what_they_feed_again(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(60)), (1, "R2", reading(75)))
    warehouse.build()
    lower = replace(warehouse, settings=replace(warehouse.settings, threshold_humidity=Decimal("59.5")))
    try:
        result = lower.build()  # though nothing new was staged
        assert degraded(warehouse) == [("R1", True), ("R2", True)]
        assert warehouse.query("select readings, degraded from marts.telemetry_per_minute") == [(2, 2)]
        assert result.rows == 1 + 1  # the difference: a reading and its minute
        warehouse.telemetry((2, "R3", reading(59.6)))
        lower.build()
        assert warehouse.query("select readings, degraded from marts.telemetry_per_minute") == [(3, 3)]
    finally:
        warehouse.build()
    warehouse.assert_right(*TELEMETRY)


def test_added_kpi_is_degraded_only_where_it_has_a_threshold(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(1e6, "noise")), (1, "R2", reading(901, "co2-level")))
    warehouse.build(select=TELEMETRY)
    assert degraded(warehouse) == [("R1", False), ("R2", False)]
    thresholds = {"HEADRACE_THRESHOLD_CO2_LEVEL": Decimal(900)}
    settings = replace(warehouse.settings, telemetry_kpis=("noise", "co2-level"), added_thresholds=thresholds)
    extended = replace(warehouse, settings=settings)
    try:
        extended.build(select=TELEMETRY)
        assert degraded(warehouse) == [("R1", False), ("R2", True)]
    finally:
        warehouse.build(select=TELEMETRY)


def test_threshold_written_otherwise_is_the_same(warehouse: Warehouse) -> None:
    warehouse.telemetry((0, "R1", reading(60)))
    warehouse.build(select=TELEMETRY)
    same = replace(warehouse, settings=replace(warehouse.settings, threshold_humidity=Decimal("7.00e1")))
    warehouse.telemetry((1, "R2", reading(75)))
    same.build(select=TELEMETRY)
    warehouse.assert_right(*TELEMETRY)
