"""The errors that Headrace raises on purpose.

A message says where, what was found, what was expected and the remedy, in one line. Whether trying again can
help is a type: `RetriableError` or `PermanentError`; Airflow's tasks turn the latter into AirflowFailException. The
command that a message names is a field as well: what it quotes of others is never searched for one. So is the place
that it names: dataset, generation, partition and offset, where they are known. Errors pickle with their fields.

A cause is what several datasets share, in words that are the same for all of them ("Kafka at kafka:9092 does not
answer"): errors with the same cause are one problem.
"""

from typing import TypedDict, Unpack

from headrace.command import Command
from headrace.output import shown


class Where(TypedDict, total=False):
    """As much of the place that a message names as is known. offset: the first one that it is about."""

    dataset: str
    generation: int
    partition: int
    offset: int


class HeadraceError(Exception):
    """headrace failed"""

    def __init__(
        self,
        message: str | None = None,
        *,
        command: Command | None = None,
        cause: str | None = None,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(shown(message) if message else self.__class__.__doc__)
        self.command = command
        self.cause = None if cause is None else shown(cause)
        self.dataset = where.get("dataset")
        self.generation = where.get("generation")
        self.partition = where.get("partition")
        self.offset = where.get("offset")


class RetriableError(HeadraceError):
    """a passing failure: the same call may succeed later"""


class PermanentError(HeadraceError):
    """the same call will fail again until something is changed"""


class SettingError(PermanentError):
    """a setting is unknown or has a value that cannot be used"""


class ExtraMissing(PermanentError):
    """a package that an extra of Headrace installs is missing"""


class DatasetError(PermanentError):
    """a dataset's declaration cannot be used"""


class UsageError(PermanentError):
    """what the caller named does not exist, or is no value of that kind"""


class DatasetsRejected(DatasetError):
    """some datasets are rejected, the others are ready"""


class NotConfirmed(PermanentError):
    """a command that cannot be undone was not confirmed; nothing was changed"""


class LocalServiceError(PermanentError):
    """a local service could not be started or stopped"""


class SourceRefused(PermanentError):
    """the source refuses this user, or this access"""


class SourceUnavailable(RetriableError):
    """the source did not answer"""


class SourceError(RetriableError):
    """the source answered with an error while records were read: a new process may try again"""


class CodecMissing(PermanentError):
    """records are compressed by a codec that this installation cannot read"""


class SourceChanged(PermanentError):
    """the source is not the one that the checkpoint belongs to"""


class AnotherCluster(SourceChanged):
    """another Kafka cluster answers at the address of the one that the checkpoint belongs to"""


class DatasetPaused(PermanentError):
    """the dataset is paused"""


class TopicMissing(PermanentError):
    """the topic does not exist"""


class DatabaseUnavailable(RetriableError):
    """postgres did not answer"""


class DatabaseError(PermanentError):
    """postgres refused a statement; nothing was changed"""


class CheckpointMoved(RetriableError):
    """another run moved the checkpoint first"""


class DrainKilled(RetriableError):
    """a process of a drain was killed"""


class FileSourceError(PermanentError):
    """a file cannot be read"""


class BuildError(PermanentError):
    """dbt could not build a model"""


class RegistryUnavailable(RetriableError):
    """the schema registry did not answer"""


class RegistryRefused(PermanentError):
    """the schema registry refused the request, or is none"""
