"""What the datasets' payloads are made of, field by field."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from tests.support.fuzz_values import json_bigint, json_money, json_text, json_time, json_value

Maker = Callable[[Random], str]  # makes a valid JSON text of one field
PayloadFields = dict[str, str]  # a document: names and values as JSON texts


@dataclass(frozen=True, slots=True)
class PayloadShape:
    """A dataset to make payloads of: its key field, and for each field what it may hold.

    separator: stands between a key and the document in the values of records without a key.
    """

    key: str
    fields: Mapping[str, Maker]
    separator: bytes | None = None


def _or_null(maker: Maker) -> Maker:
    return lambda rng: rng.choice(("null", '""')) if rng.random() < 0.1 else maker(rng)


def _as_text(maker: Maker) -> Maker:
    """Now and then as a text."""
    return lambda rng: f'"{maker(rng)}"' if rng.random() < 0.1 else maker(rng)


def _number(rng: Random) -> str:
    return rng.choice((json_money, json_bigint, lambda rng: repr(rng.uniform(-1e9, 1e9))))(rng)


def _revenue(rng: Random) -> str:
    return rng.choice(
        (json_money, json_money, lambda rng: repr(rng.uniform(0, 1e9)), lambda rng: f"{rng.random():.40f}")
    )(rng)


def _milliseconds(rng: Random) -> str:
    return str(rng.choice((10**11, 253_402_214_399_999, rng.randrange(10**11, 2 * 10**12))))


JOBS = PayloadShape(
    "JOBIDENTIFIER",
    {
        "JOBCREATEDATE": _or_null(json_time),
        "JOBDATE": _or_null(json_time),
        "JOBIDENTIFIER": _as_text(lambda rng: f"{rng.randrange(10**6)}{rng.choice(('', '', '', '.0', 'e2'))}"),
        "JOBSTATUS": lambda rng: rng.choice(('"SUCCESS"', '"NO SUCCESS"')),
        "LOCATION": json_text,
        "REVENUE": _or_null(_as_text(_revenue)),
        "SERVICENAME": json_text,
        "USERID": _as_text(json_bigint),
    },
    separator=b"|",
)
READINGS = PayloadShape(
    "ID",
    {
        "ID": lambda rng: json.dumps(f"{rng.randrange(10**6)}{rng.choice(('', '', '', ' ', 'é', '|'))}"),
        "TAKEN": _as_text(_milliseconds),
        "WRITTEN": lambda rng: "null" if rng.random() < 0.2 else json_time(rng),
        "VALUE": _as_text(_number),
        "EXACT": lambda rng: "null" if rng.random() < 0.2 else json_money(rng),
        "COUNT": lambda rng: str(rng.choice((-(2**15), 2**15 - 1, rng.randrange(1000)))),
        "TOTAL": lambda rng: "null" if rng.random() < 0.2 else json_bigint(rng),
        "GOOD": lambda rng: rng.choice(("true", "false")),
        "KIND": lambda rng: rng.choice(('"a"', '"b"')),
        "NOTE": lambda rng: "null" if rng.random() < 0.2 else json_text(rng),
        "PAYLOAD": lambda rng: "{" + f'"p":{json_value(rng)}' + "}",
        "LIST": lambda rng: rng.choice(("null", "[]", f"[{json_value(rng)}]")),
    },
)
EVENTS = PayloadShape(
    "event_id",
    {
        "schema_version": lambda rng: rng.choice(("1", "1", '"2"')),
        "event_id": lambda rng: json.dumps(f"{rng.randrange(10**6)}"),
        "event_time": json_time,
        "user_id": json_text,
        "event_type": json_text,
        "payload": lambda rng: "{" + f'"p":{json_value(rng)}' + "}",
    },
)
RIDES = PayloadShape(
    "PULocationID",
    {
        "PULocationID": json_bigint,
        "DOLocationID": _as_text(json_bigint),
        "trip_distance": _revenue,
        "total_amount": lambda rng: rng.choice(("", "-")) + _revenue(rng),
        "tpep_pickup_datetime": _milliseconds,
    },
)
TELEMETRY = PayloadShape(
    "event_id",
    {
        "event_id": lambda rng: json.dumps(f"{rng.randrange(10**6)}"),
        "device_id": lambda rng: (json_text if rng.random() < 0.8 else json_money)(rng),
        "zone": lambda rng: json.dumps(f"zone-{rng.choice('abcd')}"),
        "ts": _as_text(lambda rng: f"{rng.uniform(0, 2e9):.{rng.choice((0, 3, 6, 9))}f}"),
        "kpi": lambda rng: rng.choice(('"temperature"', '"humidity"', '"pressure"', '"vibration"')),
        "value": _as_text(lambda rng: rng.choice((repr(rng.uniform(0, 1e4)), f"{rng.randrange(10**6)}e-2"))),
    },
)
USERS = PayloadShape("USERID", {"LOCATION": json_text, "USERID": _as_text(json_bigint)})
