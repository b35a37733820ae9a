"""What the argument of `headrace infer` names: a file, a topic, a stream, a subject or a table."""

from pathlib import Path

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SettingError
from headrace.formats.registry import Registry
from headrace.infer.options import Kind
from headrace.infer.sample import exists
from headrace.infer.subjects import versions
from headrace.sources.declarations import TOPIC, KafkaTopic, RedisStream

FILE_SUFFIXES = frozenset({".ndjson", ".jsonl", ".csv", ".parquet"})


def kind_of(deployment: Deployment, name: str) -> Kind:
    """The kind of the first that there is: a file, a topic, a stream, a subject, a table.

    A name is a file's if the file exists or has a suffix of ours: one of another kind is refused as such.
    Services without an address are passed over. Raises DatasetError if there is none of that name, and the services'
    own errors.
    """
    if FILE_SUFFIXES & set(Path(name).suffixes) or any(
        path.is_file() for path in (Path(name), deployment.settings.data_dir / name)
    ):
        return "file"
    kinds: tuple[Kind, ...] = ("topic", "stream", "subject")
    for kind in kinds:
        try:
            if _is_there(deployment, kind, name):
                return kind
        except SettingError:
            continue
    if name.count(".") == 1:
        return "table"
    raise DatasetError(
        f"{name}: found no topic, stream, subject or file of that name, expected one, or a table as schema.table; "
        "correct the name, or say what it is: --kind"
    )


def _is_there(deployment: Deployment, kind: Kind, name: str) -> bool:
    if kind == "topic":
        return bool(TOPIC.fullmatch(name)) and exists(deployment, KafkaTopic(topic=name))
    if kind == "stream":
        return exists(deployment, RedisStream(stream=name))
    return bool(versions(Registry(deployment.settings), name))
