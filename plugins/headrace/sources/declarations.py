"""The declarations of sources: KafkaTopic, KafkaTopics, RedisStream, File. Users import them from headrace.dataset.

A declaration answers all questions about its kind of source, so no other package checks kinds. It imports the module
that reads its kind only in `open`: Kafka's client takes 0.3 s to import, pandas 1.5 s.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from headrace.contracts.columns import Column
from headrace.exceptions import DatasetError, FileSourceError
from headrace.optional import needs
from headrace.settings import Settings
from headrace.sources.base import Source
from headrace.sources.bounds import Bounds

if TYPE_CHECKING:
    from headrace.sources.kafka import KafkaSource

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's own rule


class Services(Protocol):
    """What a source needs to be opened; a Deployment implements it."""

    @property
    def settings(self) -> Settings:
        """The settings of the run."""

    @property
    def kafka(self) -> Callable[[], Mapping[str, Any]]:
        """A function that returns the settings of Kafka's clients."""

    @property
    def redis(self) -> Callable[[], str]:
        """A function that returns Redis's URL."""


class SourceDeclaration(Protocol):
    """The questions that a source's declaration answers."""

    @property
    def kind(self) -> str:
        """One word: topic, stream or file. It selects the publisher and the reader of verify."""

    @property
    def name(self) -> str:
        """The topic, the stream, or the path below HEADRACE_DATA_DIR."""

    @property
    def target(self) -> str:
        """The source for messages, for example `topic jobs`."""

    @property
    def is_file(self) -> bool:
        """Whether it is loaded as a whole: each changed file is a new generation; there is nothing to drain."""

    @property
    def can_reload(self) -> bool:
        """Whether a range can be read again; then `open` returns a `ReloadableSource`."""

    @property
    def has_record_keys(self) -> bool:
        """Whether its records have keys, which the contract compares with the dataset's key."""

    @property
    def created_partitions(self) -> int | None:
        """The number of partitions if `headrace produce` creates it; None for a source without partitions."""

    @property
    def dead_letter_topic(self) -> str | None:
        """The Kafka topic to which dead letters are also sent; None for none."""

    @property
    def dead_letter_partitions(self) -> int:
        """The number of partitions if the first dead letter creates that topic."""

    @property
    def has_malformed_rows(self) -> bool:
        """Whether its reader can reject rows before the contract sees them (Reason.MALFORMED_ROW)."""

    def commands(self, dataset: str) -> Sequence[str]:
        """The commands that fill the dataset's staging table, the one that reads the source first."""

    def open(self, services: Services, columns: Sequence[Column], bounds: Bounds, path: Path | None = None) -> Source:
        """Open the source; `path` replaces the declared file.

        columns: the contract's, by which tables are read. bounds: size limits of records.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTopic:
    """Records come from a Kafka topic.

    partitions: how many it gets if `headrace produce` creates it.
    dead_letter_topic: where dead letters are also sent, besides headrace.dead_letters. Defaults to none.
    dead_letter_partitions: how many that topic gets if the first dead letter creates it. Defaults to 1.
    """

    kind: ClassVar[str] = "topic"
    is_file: ClassVar[bool] = False
    can_reload: ClassVar[bool] = True
    has_record_keys: ClassVar[bool] = True
    has_malformed_rows: ClassVar[bool] = False

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
                f"topic {self.topic!r}: is its own dead-letter topic, expected another one: the drain would read its "
                "dead letters again"
            )
        if self.partitions < 1 or self.dead_letter_partitions < 1:
            raise DatasetError(f"topic {self.topic!r}: expected at least one partition")

    @property
    def name(self) -> str:
        """The topic."""
        return self.topic

    @property
    def target(self) -> str:
        """The topic, for messages."""
        return f"topic {self.topic}"

    @property
    def created_partitions(self) -> int:
        """The declared partitions."""
        return self.partitions

    def commands(self, dataset: str) -> Sequence[str]:
        """The commands that drain it and produce to it."""
        return f"headrace drain {dataset}", f"headrace produce {dataset} FILE"

    def open(self, services: Services, _columns: Sequence[Column], bounds: Bounds, _path: Path | None = None) -> Source:
        """Open it with the client that HEADRACE_KAFKA_CLIENT names; it connects at the first request."""
        settings = services.settings
        return _topic_source(settings.kafka_client)(
            self.topic,
            services.kafka(),
            max_poll_records=settings.batch_rows,
            max_partition_fetch_bytes=settings.batch_bytes,
            poll_bytes=settings.batch_bytes,
            bounds=bounds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTopics:
    """Records come from several Kafka topics, each with its own checkpoints and its own identity.

    topics: their names, two or more. pattern: a regular expression in their place; topics whose whole name it matches
    belong to the dataset, also those that are created later.
    dead_letter_topic, dead_letter_partitions: as those of KafkaTopic.
    """

    kind: ClassVar[str] = "topics"
    is_file: ClassVar[bool] = False
    can_reload: ClassVar[bool] = True
    has_record_keys: ClassVar[bool] = True
    has_malformed_rows: ClassVar[bool] = False
    created_partitions: ClassVar[int | None] = None

    topics: tuple[str, ...] = ()
    pattern: str | None = None
    dead_letter_topic: str | None = None
    dead_letter_partitions: int = 1

    def __post_init__(self) -> None:
        for topic in (*self.topics, *filter(None, (self.dead_letter_topic,))):
            if not TOPIC.fullmatch(topic) or topic in (".", ".."):
                raise DatasetError(f"topic {topic!r}: expected {TOPIC.pattern}, as Kafka does")
        is_whole = len(set(self.topics)) > 1 if self.pattern is None else not self.topics
        if isinstance(self.topics, str) or not is_whole:
            raise DatasetError(
                f"KafkaTopics: found topics {self.topics!r} and pattern {self.pattern!r}, expected two topics or more, "
                "or a pattern; one topic is a KafkaTopic"
            )
        if len(set(self.topics)) < len(self.topics):
            raise DatasetError(f"KafkaTopics: found topics {self.topics!r}, expected each of them once")
        try:
            matches = re.compile(self.pattern or "").fullmatch(self.dead_letter_topic or "")
            is_read = self.dead_letter_topic in self.topics or (self.dead_letter_topic is not None and bool(matches))
        except re.error as error:
            raise DatasetError(f"pattern {self.pattern!r}: expected a regular expression: {error}") from error
        if is_read:
            raise DatasetError(
                f"topic {self.dead_letter_topic!r}: is the dead-letter topic of its own dataset, expected another one: "
                "the drain would read its dead letters again"
            )
        if self.dead_letter_partitions < 1:
            raise DatasetError(f"topic {self.dead_letter_topic!r}: expected at least one partition")

    @property
    def name(self) -> str:
        """The topics, or `pattern` and the pattern; no topic has such a name."""
        return ", ".join(self.topics) if self.pattern is None else f"pattern {self.pattern}"

    @property
    def target(self) -> str:
        """The topics, for messages."""
        return f"topics {self.name}" if self.pattern is None else f"topics that match {self.pattern}"

    def commands(self, dataset: str) -> Sequence[str]:
        """The command that drains them."""
        return (f"headrace drain {dataset}",)

    def open(self, services: Services, _columns: Sequence[Column], bounds: Bounds, _path: Path | None = None) -> Source:
        """Open them with kafka-python, whatever HEADRACE_KAFKA_CLIENT names."""
        from headrace.sources.kafka_several import SeveralTopics

        settings = services.settings
        return SeveralTopics(
            self.name,
            services.kafka(),
            topics=self.topics if self.pattern is None else re.compile(self.pattern),
            max_records=settings.batch_rows,
            max_bytes=settings.batch_bytes,
            bounds=bounds,
        )


def _topic_source(client: str) -> "type[KafkaSource]":
    if client == "confluent":
        from headrace.sources.kafka_confluent import ConfluentSource

        return ConfluentSource
    from headrace.sources.kafka import KafkaSource

    return KafkaSource


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStream:
    """Records are the entries of a Redis stream; every field is text."""

    kind: ClassVar[str] = "stream"
    is_file: ClassVar[bool] = False
    can_reload: ClassVar[bool] = False
    has_record_keys: ClassVar[bool] = False
    has_malformed_rows: ClassVar[bool] = False
    created_partitions: ClassVar[int | None] = None
    dead_letter_topic: ClassVar[str | None] = None
    dead_letter_partitions: ClassVar[int] = 1

    stream: str

    @property
    def name(self) -> str:
        """The stream."""
        return self.stream

    @property
    def target(self) -> str:
        """The stream, for messages."""
        return f"stream {self.stream}"

    def commands(self, dataset: str) -> Sequence[str]:
        """The command that drains it."""
        return (f"headrace drain {dataset}",)

    def open(self, services: Services, _columns: Sequence[Column], bounds: Bounds, _path: Path | None = None) -> Source:
        """Open it; it connects at the first request."""
        with needs("redis"):
            from headrace.sources.redis import RedisSource

        return RedisSource(self.stream, services.redis(), bounds=bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Records are the lines of a file below HEADRACE_DATA_DIR."""

    kind: ClassVar[str] = "file"
    is_file: ClassVar[bool] = True
    can_reload: ClassVar[bool] = False
    has_record_keys: ClassVar[bool] = False
    created_partitions: ClassVar[int | None] = None
    dead_letter_topic: ClassVar[str | None] = None
    dead_letter_partitions: ClassVar[int] = 1

    path: str

    def __post_init__(self) -> None:
        if PurePath(self.path).is_absolute() or ".." in PurePath(self.path).parts:
            raise DatasetError(f"file {self.path!r}: expected a path below HEADRACE_DATA_DIR")

    @property
    def name(self) -> str:
        """The path below HEADRACE_DATA_DIR."""
        return self.path

    @property
    def target(self) -> str:
        """The file, for messages."""
        return f"file data-files/{self.path}"

    @property
    def has_malformed_rows(self) -> bool:
        """Whether it is a .csv, whose rows may have more or fewer cells than its header."""
        return ".csv" in PurePath(self.path).suffixes

    def commands(self, dataset: str) -> Sequence[str]:
        """The command that loads it."""
        return (f"headrace load {dataset} [FILE]",)

    def open(self, services: Services, columns: Sequence[Column], _bounds: Bounds, path: Path | None = None) -> Source:
        """Open the declared file, or `path`; raises FileSourceError for a link that leads out of HEADRACE_DATA_DIR."""
        from headrace.sources.file import FileSource

        settings = services.settings
        if path is None:
            path = settings.data_dir / self.path
            if not path.resolve().is_relative_to(settings.data_dir.resolve()):
                raise FileSourceError(f"{path}: leads to {path.resolve()}, expected a file below {settings.data_dir}")
        return FileSource(
            path,
            {
                name: "jsonb" if column.inner else column.value_type  # a flattened object is JSON in one cell
                for column in columns
                for name in column.document_names
            },
            [column.document_names for column in columns if column.required and column.document_names],
            unpacked_bytes=settings.unpacked_bytes_max,
        )


def names_file(declaration: str) -> bool:
    """Whether the text of a declaration, which cannot be loaded, names a source that is loaded as a whole."""
    found = re.search(r"\bsource\s*=\s*(?:\w+\.)?(\w+)\s*\(", declaration)
    return found is not None and getattr(globals().get(found[1]), "is_file", False) is True
