"""What the marts must hold, worked out from the staged rows in plain Python: no SQL, no incremental anything."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

RANKS = 20
THRESHOLDS = {"temperature": 80, "humidity": 70, "pressure": 1050, "vibration": 5}
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Version:
    """One staged row: where it was in its source, and its contract's columns (None: a tombstone)."""

    generation: int
    partition: int
    offset: int
    timestamp: datetime | None
    key: Any
    columns: Mapping[str, Any] | None


def current(versions: Iterable[Version], wins: str = "newest") -> dict[Any, Mapping[str, Any]]:
    """The current version of every key that is not deleted; of events the first one that was sent."""
    by_key: dict[Any, list[Version]] = defaultdict(list)
    for version in versions:
        if version.key is not None and (wins == "newest" or version.columns is not None):
            by_key[version.key].append(version)
    best = max if wins == "newest" else min
    found = {}
    for key, candidates in by_key.items():
        generation = best(version.generation for version in candidates)
        partitions: dict[int, list[Version]] = defaultdict(list)
        for version in candidates:
            if version.generation == generation:
                partitions[version.partition].append(version)
        winners = [best(partition, key=lambda version: version.offset) for partition in partitions.values()]
        winner = best(winners, key=lambda version: (version.timestamp or LONG_AGO, version.partition))
        if winner.columns is not None:
            found[key] = winner.columns
    return found


def marts(
    users: Iterable[Version],
    jobs: Iterable[Version],
    events: Iterable[Version],
    rides: Iterable[Version],
    telemetry: Iterable[Version],
) -> dict[str, set[tuple[Any, ...]]]:
    """Every mart as a set of rows."""
    return {
        **_marts_of_jobs(jobs, users),
        **_marts_of_events(events),
        **_marts_of_rides(rides),
        **_marts_of_telemetry(telemetry),
    }


def _marts_of_telemetry(versions: Iterable[Version]) -> dict[str, set[tuple[Any, ...]]]:
    readings = current(versions, wins="first")
    degraded = {key: reading["value"] > THRESHOLDS.get(reading["kpi"], math.inf) for key, reading in readings.items()}
    buckets: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for key, reading in readings.items():
        buckets[_minute(reading["ts"]), reading["zone"], reading["kpi"]].append(key)
    figures = set()
    for bucket, keys in buckets.items():
        values = sorted(readings[key]["value"] for key in keys)
        total = 0.0  # as Postgres adds them up: sum() of later Pythons compensates
        for value in values:
            total += value
        figures.add(
            (*bucket, len(values), sum(degraded[key] for key in keys), values[0], values[-1], total / len(values))
        )
    return {
        "telemetry": {
            (key, r["device_id"], r["zone"], r["ts"], r["kpi"], r["value"], degraded[key])
            for key, r in readings.items()
        },
        "telemetry_per_minute": figures,
    }


def _marts_of_events(versions: Iterable[Version]) -> dict[str, set[tuple[Any, ...]]]:
    events = current(versions, wins="first")
    minutes = Counter((_minute(event["event_time"]), event["event_type"]) for event in events.values())
    return {
        "events": {
            (key, e["event_time"], e["user_id"], e["event_type"], e["payload"], e["schema_version"])
            for key, e in events.items()
        },
        "events_per_minute": {(*bucket, count) for bucket, count in minutes.items()},
    }


def _marts_of_rides(versions: Iterable[Version]) -> dict[str, set[tuple[Any, ...]]]:
    rides = {
        (version.generation, version.partition, version.offset): version.columns
        for version in versions
        if version.columns is not None
    }
    hours: dict[datetime, list[Mapping[str, Any]]] = defaultdict(list)
    for ride in rides.values():
        hours[_minute(ride["tpep_pickup_datetime"]).replace(minute=0)].append(ride)
    return {
        "rides": {
            (
                ride["pulocationid"],
                ride["dolocationid"],
                ride["trip_distance"],
                ride["total_amount"],
                ride["tpep_pickup_datetime"],
                *coordinate,
            )
            for coordinate, ride in rides.items()
        },
        "rides_per_hour": {
            (
                hour,
                sum(ride["total_amount"] for ride in group),
                len(group),
                sum(ride["trip_distance"] for ride in group),
            )
            for hour, group in hours.items()
        },
    }


def _minute(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(second=0, microsecond=0)


def _marts_of_jobs(versions: Iterable[Version], user_versions: Iterable[Version]) -> dict[str, set[tuple[Any, ...]]]:
    users = {userid: columns["location"] for userid, columns in current(user_versions).items()}
    jobs = {}
    for jobidentifier, columns in current(versions).items():
        revenue = (columns["revenue"] or Decimal(0)) if columns["jobstatus"] == "SUCCESS" else Decimal(0)
        jobs[jobidentifier] = {
            **columns,
            "jobidentifier": jobidentifier,
            "reported": columns["revenue"],
            "revenue": revenue,
        }

    minutes: dict[datetime, list[Decimal]] = defaultdict(list)
    visitors: dict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for job in jobs.values():
        if job["jobcreatedate"] is not None:
            minutes[_minute(job["jobcreatedate"])].append(job["revenue"])
        home = users.get(job["userid"])
        if home is not None and home != job["location"]:
            visitors[job["location"], job["userid"]] += job["revenue"]

    top_users = set()
    for job_location in {location for location, _ in visitors}:
        ranking = sorted(
            (-revenue, userid)
            for (location, userid), revenue in visitors.items()
            if location == job_location and revenue
        )
        top_users |= {
            (job_location, rank, userid, -revenue) for rank, (revenue, userid) in enumerate(ranking[:RANKS], 1)
        }

    return {
        "users": set(users.items()),
        "jobs": {
            (
                job["jobidentifier"],
                job["userid"],
                job["jobcreatedate"],
                job["jobdate"],
                job["jobstatus"],
                job["location"],
                job["revenue"],
                job["reported"],
                job["servicename"],
            )
            for job in jobs.values()
        },
        "jobs_per_minute": {(minute, len(revenues), sum(revenues)) for minute, revenues in minutes.items()},
        "visitor_revenues": {(*pair, revenue) for pair, revenue in visitors.items() if revenue},
        "top_users_by_location": top_users,
        "latest_jobs_by_location": _latest(jobs.values(), "location"),
        "latest_jobs_by_service": _latest(jobs.values(), "servicename"),
    }


def _latest(jobs: Iterable[Mapping[str, Any]], column: str) -> set[tuple[Any, ...]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for job in jobs:
        groups[job[column]].append(job)
    found = set()
    for value, group in groups.items():
        group.sort(key=lambda job: job["jobidentifier"])
        group.sort(key=lambda job: job["jobdate"] or LONG_AGO, reverse=True)  # those without one last
        for rank, job in enumerate(group[:RANKS], 1):
            found.add(
                (value, job["jobidentifier"], job["userid"], job["jobstatus"], job["revenue"], job["jobdate"], rank)
            )
    return found
