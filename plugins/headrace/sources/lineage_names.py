"""What a dataset is read from, in OpenLineage's names of datasets: a namespace and a name.

Source: https://openlineage.io/docs/spec/naming. Redis has no entry there; its names are made like Kafka's.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.sources.declarations import Services

KAFKA_PORT = 9092
REDIS_PORT = 6379


def lineage_names(source: Any, services: Services, path: Path | None = None) -> Sequence[tuple[str, str]]:
    """The namespaces and names of what a source declares; path: of a file other than the declared one.

    Empty for a pattern of topics, which names none, and for a kind of source that is not known here.
    """
    names = _NAMES.get(source.kind)
    return names(source, services, path) if names else ()


def _topic(source: Any, services: Services, _path: Path | None) -> Sequence[tuple[str, str]]:
    return [(_kafka(services), source.topic)]


def _topics(source: Any, services: Services, _path: Path | None) -> Sequence[tuple[str, str]]:
    return [(_kafka(services), topic) for topic in source.topics]


def _stream(source: Any, services: Services, _path: Path | None) -> Sequence[tuple[str, str]]:
    parts = urlsplit(services.redis())
    return [(f"redis://{parts.hostname or 'localhost'}:{parts.port or REDIS_PORT}", source.stream)]


def _file(source: Any, services: Services, path: Path | None) -> Sequence[tuple[str, str]]:
    return [("file", str((path or services.settings.data_dir / source.path).resolve()))]


def _kafka(services: Services) -> str:
    """The namespace of a cluster: its first bootstrap server."""
    servers = services.kafka()["bootstrap_servers"]
    first = (servers.split(",") if isinstance(servers, str) else list(servers))[0].strip()
    host, colon, port = first.rpartition(":")
    return f"kafka://{first}" if colon and host and port.isdigit() else f"kafka://{first}:{KAFKA_PORT}"


_NAMES: Mapping[str, Callable[[Any, Services, Path | None], Sequence[tuple[str, str]]]] = {
    "topic": _topic,
    "topics": _topics,
    "stream": _stream,
    "file": _file,
}
