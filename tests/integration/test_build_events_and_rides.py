"""marts.events and marts.rides: events that are sent twice, rides that come late, and the real rides file."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.dataset import load_dataset
from tests.support.mart_rows import COLUMNS, START, event, ride
from tests.support.marts_oracle import Version
from tests.support.warehouse import Warehouse

RIDES_FILE = Path(__file__).parents[2] / "data-files" / "rides.ndjson"
RIDES, EVENTS = ["rides", "rides_per_hour"], ["events", "events_per_minute"]


class Written:
    """The rows of a mart that were written since this was made."""

    def __init__(self, warehouse: Warehouse, mart: str) -> None:
        self._warehouse, self._mart = warehouse, mart
        self._newest = warehouse.value(f"select coalesce(max(xmin::text::bigint), 0) from marts.{mart}")

    def rows(self, columns: str) -> set[tuple[Any, ...]]:
        return set(
            self._warehouse.query(
                f"select {columns} from marts.{self._mart} where xmin::text::bigint > %s", self._newest
            )
        )


def test_event_that_is_sent_twice_counts_once_and_the_first_one_stays(warehouse: Warehouse) -> None:
    warehouse.events((0, "E1", event("click")), (1, "E1", event("view")), (2, "E2", event("click", 1)))
    warehouse.build(select=EVENTS)
    warehouse.assert_right(*EVENTS)
    written = Written(warehouse, "events"), Written(warehouse, "events_per_minute")
    warehouse.events((3, "E1", event("view", 3)), (4, None, None), (5, "E2", event("click", 1)))
    result = warehouse.build(select=EVENTS)
    warehouse.assert_right(*EVENTS)
    assert [mart.rows("*") for mart in written] == [set(), set()]
    assert result.rows == 0
    assert warehouse.query("select event_id, event_type from marts.events order by 1") == [
        ("E1", "click"),
        ("E2", "click"),
    ]


def test_first_sent_event_that_comes_late_takes_over_and_corrects_both_minutes(warehouse: Warehouse) -> None:
    warehouse.events((7, "E1", event("click", 5)), (8, "E2", event("click", 6)), (9, "E3", event("click", 5)))
    warehouse.build(select=EVENTS)
    written = Written(warehouse, "events_per_minute")
    warehouse.events((3, "E1", event("view", 4)))  # a dead letter that was replayed keeps its place
    warehouse.build(select=EVENTS)
    warehouse.assert_right(*EVENTS)
    assert written.rows("minute, event_type, events") == {
        (START + timedelta(minutes=4), "view", 1),
        (START + timedelta(minutes=5), "click", 1),
    }


def test_events_in_the_same_minute_write_the_buckets_of_their_types_only(warehouse: Warehouse) -> None:
    warehouse.events(*((n, f"E{n}", event("click" if n % 2 else "view", n)) for n in range(40)))
    warehouse.build(select=EVENTS)
    written = Written(warehouse, "events_per_minute")
    warehouse.events((100, "E100", event("click", 20.5)), (101, "E101", event("click", 21)))
    result = warehouse.build(select=EVENTS)
    warehouse.assert_right(*EVENTS)
    assert result.rows == 4
    assert written.rows("minute, event_type, events") == {
        (START + timedelta(minutes=20), "click", 1),
        (START + timedelta(minutes=21), "click", 2),
    }


@pytest.mark.parametrize("late", [timedelta(hours=2), timedelta(days=31)], ids=["two hours", "a month"])
def test_late_ride_corrects_its_hour_and_no_other(warehouse: Warehouse, late: timedelta) -> None:
    hours = late // timedelta(hours=1)
    warehouse.rides(*((n, ride("10.05", n)) for n in range(4)), (4, ride("1.10", 3 - hours)))
    warehouse.build(select=RIDES)
    written = Written(warehouse, "rides_per_hour")
    warehouse.rides((5, ride("2.20", 3.5 - hours, "0.30")))
    result = warehouse.build(select=RIDES)
    warehouse.assert_right(*RIDES)
    assert result.rows == 2  # the ride and its hour
    (row,) = written.rows("hour, revenue, rides, distance")
    before = Decimal("11.15") if hours == 2 else Decimal("1.10")
    assert row[:2] == (START + timedelta(hours=3) - late, before + Decimal("2.20"))


def test_rides_that_say_the_same_are_rides_of_their_own(warehouse: Warehouse) -> None:
    warehouse.rides((0, ride()), (1, ride()))
    warehouse.rides((0, ride()), partition=1)
    warehouse.stage("rides", [Version(2, 0, 0, START, None, ride())])
    warehouse.build(select=RIDES)
    warehouse.assert_right(*RIDES)
    assert warehouse.query("select rides, revenue from marts.rides_per_hour") == [(4, Decimal("4.00"))]


def test_reloaded_rides_correct_the_hours_in_which_they_were(warehouse: Warehouse) -> None:
    warehouse.rides(*((n, ride("1.00", n)) for n in range(5)))
    warehouse.build(select=RIDES)
    written = Written(warehouse, "rides_per_hour")
    # 0 moves to another hour, 1 is a tombstone now, 2 breaks the contract now: nothing is left of it
    replaced = [Version(1, 0, 0, START, None, ride("1.00", 4)), Version(1, 0, 1, START, None, None)]
    warehouse.stage("rides", replaced, gone=[(1, 0, 2)])
    result = warehouse.build(select=RIDES)
    warehouse.assert_right(*RIDES)
    assert result.rows == 3 + 4
    assert written.rows("hour") == {(START + timedelta(hours=4),)}  # the other three hours are gone
    assert warehouse.value("select count(*) from marts.rides_per_hour") == 2


def test_rides_file_adds_up_to_the_cent_however_late_a_part_of_it_comes(warehouse: Warehouse) -> None:
    contract = load_dataset(warehouse.settings.datasets_dir, "rides").compiled
    names = [column.name for column in contract.columns]
    assert set(names) == set(COLUMNS["rides"][1])
    versions: list[Version] = []
    hours: dict[datetime, list[Any]] = defaultdict(lambda: [Decimal(0), 0, Decimal(0)])
    lines = RIDES_FILE.read_text().splitlines()
    for offset, line in enumerate(lines):
        row = contract.decode(None, line.encode())
        assert isinstance(row, list), row
        versions.append(Version(1, 0, offset, START, None, dict(zip(names, row, strict=False))))
        document = json.loads(line, parse_float=Decimal)
        hour = document["tpep_pickup_datetime"] // 3_600_000 * 3600
        total = hours[datetime.fromtimestamp(hour, UTC)]
        total[0] += document["total_amount"]
        total[1] += 1
        total[2] += document["trip_distance"]
    warehouse.stage("rides", [version for version in versions if version.offset % 10])
    warehouse.build(select=RIDES)
    warehouse.stage("rides", [version for version in versions if version.offset % 10 == 0])
    warehouse.build(select=RIDES, tests=True)
    warehouse.assert_right(*RIDES)
    found = warehouse.query("select hour, revenue, rides, distance from marts.rides_per_hour")
    assert {hour: total for hour, *total in found} == hours
    assert sum(rides for _, _, rides, _ in found) == len(lines) == 6500
