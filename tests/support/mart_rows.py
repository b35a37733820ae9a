"""Columns of the datasets, and rows of each with values that a test need not name."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

# of each dataset its key and the other columns of its contract; a record of rides is an entity of its own
COLUMNS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "users": ("userid", ("location",)),
    "jobs": (
        "jobidentifier",
        ("jobcreatedate", "jobdate", "jobstatus", "location", "revenue", "servicename", "userid"),
    ),
    "events": ("event_id", ("event_time", "user_id", "event_type", "payload", "schema_version")),
    "rides": (None, ("pulocationid", "dolocationid", "trip_distance", "total_amount", "tpep_pickup_datetime")),
    "telemetry": ("event_id", ("device_id", "zone", "ts", "kpi", "value")),
}


START = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)


Coordinate = tuple[int, int, int]  # generation, partition, offset


def job(
    location: str = "A",
    userid: int = 1,
    revenue: str | None = "1.00",
    minute: float | None = 0,
    status: str = "SUCCESS",
    service: str = "Driver",
) -> dict[str, Any]:
    """A job's columns; `minute` after START is when it was created, a day later it was done; None: no dates."""
    created = None if minute is None else START + timedelta(minutes=minute)
    return {
        "jobcreatedate": created,
        "jobdate": created and created + timedelta(days=1),
        "jobstatus": status,
        "location": location,
        "revenue": None if revenue is None else Decimal(revenue),
        "servicename": service,
        "userid": userid,
    }


def event(event_type: str = "click", minute: float = 0, number: int = 0) -> dict[str, Any]:
    """An event's columns; it happened `minute` after START."""
    return {
        "event_time": START + timedelta(minutes=minute),
        "user_id": f"user_{number}",
        "event_type": event_type,
        "payload": f'{{"number": {number}}}',
        "schema_version": 1,
    }


def ride(total_amount: str = "1.00", hour: float = 0, trip_distance: str = "1.00") -> dict[str, Any]:
    """A ride's columns; it began `hour` after START."""
    return {
        "pulocationid": 141,
        "dolocationid": 233,
        "trip_distance": Decimal(trip_distance),
        "total_amount": Decimal(total_amount),
        "tpep_pickup_datetime": START + timedelta(hours=hour),
    }


def reading(value: float = 1.0, kpi: str = "humidity", minute: float = 0, zone: str = "zone-a") -> dict[str, Any]:
    """A reading's columns; it was taken `minute` after START."""
    return {
        "device_id": f"device of {zone}",
        "zone": zone,
        "ts": START + timedelta(minutes=minute),
        "kpi": kpi,
        "value": value,
    }
