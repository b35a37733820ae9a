"""Streams for tests: add, trim and delete entries, create a stream again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from tests.support.stage import Stage

EntryFields = Mapping[bytes, bytes] | Sequence[bytes]  # a sequence may hold a name twice


@contextmanager
def client(url: str) -> Iterator["redis.Redis"]:
    """A client that is closed at the end."""
    with redis.Redis.from_url(url) as opened:
        yield opened


def add(url: str, stream: str, entries: Iterable[EntryFields], ids: Iterable[str] = ()) -> list[bytes]:
    """Add entries, under ids of their own or the server's; return their ids."""
    given = iter(ids)
    added: list[bytes] = []
    with client(url) as opened:
        for fields in entries:
            flat = [part for pair in fields.items() for part in pair] if isinstance(fields, Mapping) else fields
            added.append(_bytes(opened.execute_command("XADD", stream, next(given, "*"), *flat)))
    return added


def reading(number: int, **fields: str) -> dict[bytes, bytes]:
    """The fields of a valid reading."""
    values = {
        "event_id": f"e{number}",
        "device_id": "d1",
        "zone": "zone-a",
        "ts": "1767261600.25",
        "kpi": "temperature",
        "value": f"{number}.5",
    }
    return {name.encode(): value.encode() for name, value in (values | fields).items()}


def stream_of(stage: Stage) -> str:
    return str(getattr(stage.deployment.dataset("telemetry").source, "stream", None))


def send(stage: Stage, count: int, first: int = 0) -> list[bytes]:
    """Add valid readings to a stage's stream; return their ids."""
    return add(stage.deployment.redis(), stream_of(stage), (reading(first + n) for n in range(count)))


def entries(stage: Stage, last: bytes = b"+") -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of a stage's stream, up to the id `last`: pairs of id and fields."""
    with client(stage.deployment.redis()) as opened:
        found: Any = opened.xrange(stream_of(stage), max=last)
    return list(found)


def command(stage: Stage, name: str, *arguments: Any) -> Any:
    """Run a command on a stage's stream: command(stage, "XTRIM", "MAXLEN", 3)."""
    with client(stage.deployment.redis()) as opened:
        return opened.execute_command(name, stream_of(stage), *arguments)


def group(stage: Stage) -> dict[str, Any] | None:
    """What XINFO GROUPS says of the stage's own group."""
    with client(stage.deployment.redis()) as opened:
        found: list[dict[str, Any]] = opened.xinfo_groups(stream_of(stage))
    return next((each for each in found if each["name"] == b"headrace.telemetry"), None)


def _bytes(entry_id: Any) -> bytes:
    assert isinstance(entry_id, bytes)
    return entry_id
