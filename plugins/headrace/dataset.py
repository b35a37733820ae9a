"""A dataset's declaration: its contract, where its records come from, and its limits.

One file in plugins/datasets/ holds a pydantic model and one `DATASET = Dataset(...)`. The staging table, the DAG,
the command line and the documentation follow from it.
"""

import importlib.util
import re
import sys
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from headrace.contract import Contract
from headrace.exceptions import DatasetError

if TYPE_CHECKING:
    from headrace.copy_lines import Binder

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's own rule

# strict: no "1" for 1. allow: fields that the contract does not name are kept in _extra, never dropped
CONTRACT_CONFIG = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTopic:
    """Records come from a Kafka topic; `partitions` is how many it gets where `produce` creates it.

    dead_letter_topic: where dead letters are sent too, besides headrace.dead_letters. Defaults to nowhere.
    dead_letter_partitions: how many it gets where the first dead letter creates it. Defaults to 1.
    """

    topic: str
    partitions: int = 3
    dead_letter_topic: str | None = None
    dead_letter_partitions: int = 1

    def __post_init__(self) -> None:
        for topic in (self.topic, self.dead_letter_topic):
            if topic is not None and (not TOPIC.fullmatch(topic) or topic in (".", "..")):
                raise DatasetError(f"topic {topic!r}: expected {TOPIC.pattern}, as Kafka does")
        if self.dead_letter_topic == self.topic:
            raise DatasetError(
                f"topic {self.topic!r}: is its own dead-letter topic, expected another one: what is sent there would "
                "be read again"
            )
        if self.partitions < 1 or self.dead_letter_partitions < 1:
            raise DatasetError(f"topic {self.topic!r}: expected at least one partition")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStream:
    """Records are the entries of a Redis stream; numbers among their fields are told by the contract."""

    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Records are the lines of a file below HEADRACE_DATA_DIR."""

    path: str

    def __post_init__(self) -> None:
        if PurePath(self.path).is_absolute() or ".." in PurePath(self.path).parts:
            raise DatasetError(f"file {self.path!r}: expected a path below HEADRACE_DATA_DIR")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What this deployment ingests under one name.

    key: the contract's field that identifies an entity; None where every record is one of its own.
    keyed: whether a Kafka record's key must equal that field. Defaults to True.
    time_column: the contract's field that says when the thing happened; marts put it into minutes or hours.
    zone: where times that name no zone were written. Defaults to UTC.
    max_value_bytes: a longer value is a dead letter. Defaults to 1 MiB.
    schedule_s: how often its DAG looks for records. Defaults to 60.
    max_lag: more unread records than this are a problem, which fails the DAG check_freshness. Defaults to no limit.
    max_freshness_s: likewise a record that has waited longer than this and is not in every mart. Defaults to no limit.
    """

    name: str
    contract: type[BaseModel]
    source: KafkaTopic | File | RedisStream
    key: str | None = None
    keyed: bool = True
    time_column: str | None = None
    zone: str = "UTC"
    max_value_bytes: int = 1024 * 1024
    schedule_s: int = 60
    max_lag: int | None = None
    max_freshness_s: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise DatasetError(f"dataset {self.name!r}: expected a name that matches {NAME.pattern}")
        for role, field in (("key", self.key), ("time_column", self.time_column)):
            if field is not None and field not in self.contract.model_fields:
                raise DatasetError(f"{self.name}: {role} {field!r} is not a field of {self.contract.__name__}")
        numbers = (
            ("schedule_s", self.schedule_s),
            ("max_lag", self.max_lag),
            ("max_freshness_s", self.max_freshness_s),
        )
        for limit, value in numbers:
            if value is not None and value <= 0:
                raise DatasetError(f"{self.name}: {limit} is {value}, expected more than 0")

    @cached_property
    def compiled(self) -> Contract:
        """The contract, ready to decode records."""
        return Contract(
            self.contract,
            key=self.key,
            keyed=self.keyed and isinstance(self.source, KafkaTopic),
            zone=UTC if self.zone == "UTC" else ZoneInfo(self.zone),
            max_value_bytes=self.max_value_bytes,
        )

    @cached_property
    def lines(self) -> "Binder | None":
        """The contract's fast way from records to lines of COPY text; None where it has none."""
        from headrace.copy_lines import compile_lines  # 10 ms that a drain with nothing to do can do without

        return compile_lines(self.compiled)

    @property
    def key_column(self) -> str | None:
        """The staging column of the key."""
        return self.key.lower() if self.key else None


def load_dataset(datasets_dir: Path, name: str) -> Dataset:
    """Import plugins/datasets/<name>.py and return its DATASET.

    Raises DatasetError when there is none, or when it cannot be used; the message lists those that there are.
    """
    path = datasets_dir / f"{name}.py"
    if not NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(dataset_names(datasets_dir)) or "none"
        raise DatasetError(f"dataset {name!r}: not declared in {datasets_dir}; expected one of {known}")
    module_name = f"headrace_datasets_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
    except DatasetError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() in a declaration must not end a command as if it were done
        raise DatasetError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    dataset = getattr(module, "DATASET", None)
    if not isinstance(dataset, Dataset) or dataset.name != name:
        raise DatasetError(f"{path}: expected `DATASET = Dataset(name={name!r}, ...)`, found {dataset!r}")
    return dataset


def dataset_names(datasets_dir: Path) -> list[str]:
    """The names of all declared datasets, in alphabetical order; imports nothing."""
    return sorted(path.stem for path in datasets_dir.glob("*.py") if NAME.fullmatch(path.stem))
