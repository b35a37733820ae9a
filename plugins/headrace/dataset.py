"""A dataset's declaration: its contract, where its records come from, and its limits.

One file in plugins/datasets/ holds a pydantic model and one `DATASET = Dataset(...)`. The staging table, the DAG,
the command line and the documentation follow from it.
"""

import importlib.util
import re
import sys
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, create_model, field_validator

from headrace.command import Command
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.exceptions import DatasetError
from headrace.formats import JSON, Format
from headrace.settings import Settings
from headrace.sources.declarations import File as File
from headrace.sources.declarations import KafkaTopic as KafkaTopic
from headrace.sources.declarations import RedisStream as RedisStream
from headrace.sources.declarations import SourceDeclaration

if TYPE_CHECKING:
    from headrace.contracts.copy_text import Binder

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")

# allow: fields that the contract does not name are kept in _extra, never dropped, also without this config
CONTRACT_CONFIG = ConfigDict(extra="allow", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset: its name, contract, source and limits.

    key: the contract's field that identifies an entity; None if records do not describe entities.
    keyed: whether a Kafka record's key must equal that field. Defaults to True.
    time_column: the contract's field that holds the time of the event; marts group by it.
    zone: the time zone of times that name none. Defaults to UTC.
    format: how the bytes of a value encode its document (headrace.formats). Defaults to Json().
    key_format: how the bytes of a key encode it. Defaults to none: a key is the text of the field's value.
    strict: accept only JSON's own types: no "5" for 5, no 5 for a text. Defaults to False: a value that converts to
    the field's type without loss is accepted.
    max_value_bytes: a longer value is a dead letter. Defaults to 1 MiB.
    schedule_s: seconds between the runs of its DAG. Defaults to 60.
    max_lag: more unread records are a problem, and the DAG check_freshness fails. Defaults to no limit.
    max_freshness_s: a record that is older and not yet in every mart is a problem; the DAG check_freshness fails.
    Defaults to no limit.
    """

    name: str
    contract: type[BaseModel]
    source: SourceDeclaration
    key: str | None = None
    keyed: bool = True
    time_column: str | None = None
    zone: str = "UTC"
    format: Format = JSON
    key_format: Format | None = None
    strict: bool = False
    max_value_bytes: int = 1024 * 1024
    schedule_s: int = 60
    max_lag: int | None = None
    max_freshness_s: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        faults: list[str] = []
        if not NAME.fullmatch(self.name):
            faults.append(f"expected a name that matches {NAME.pattern}")
        for role, field in (("key", self.key), ("time_column", self.time_column)):
            if field is not None and field not in self.contract.model_fields:
                faults.append(f"{role} {field!r} is not a field of {self.contract.__name__}")
        numbers = (
            ("schedule_s", self.schedule_s),
            ("max_lag", self.max_lag),
            ("max_freshness_s", self.max_freshness_s),
        )
        for limit, value in numbers:
            if value is not None and value <= 0:
                faults.append(f"{limit} is {value}, expected more than 0")
        if self.format.has_schema_ids and self.source.kind != "topic":
            faults.append(f"format is {self.format.name}, expected one without a registry: only topics have others")
        if self.key_format is not None and not (self.key and self.keyed and self.source.has_record_keys):
            faults.append("key_format is set, expected a key that the records of a topic carry too")
        try:
            self._zone()
        except (ValueError, OSError):
            faults.append(f"zone is {self.zone!r}, expected a name such as Europe/Berlin")
        if faults:
            raise DatasetError(f"{self.name}: {'; '.join(faults)}")

    def _zone(self) -> tzinfo:
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    def second(self) -> "Dataset":
        """The dataset with a reader of values other than the loader's, for `verify --deep`."""
        return replace(self, format=self.format.second())

    @cached_property
    def compiled(self) -> Contract:
        """The contract, compiled; it decodes records."""
        return Contract(
            self.contract,
            key=self.key,
            keyed=self.keyed and self.source.has_record_keys,
            zone=self._zone(),
            max_value_bytes=self.max_value_bytes,
            strict=self.strict,
            format=self.format,
            key_format=self.key_format,
        )

    def connected(self, settings: Settings) -> "Dataset":
        """The dataset of a deployment, whose formats find their registry."""
        format = self.format.connected(settings)
        key_format = self.key_format.connected(settings) if self.key_format is not None else None
        if format is self.format and key_format is self.key_format:
            return self
        return replace(self, format=format, key_format=key_format)

    @cached_property
    def copy_line_binder(self) -> "Binder | None":
        """The contract's fast path from records to lines of COPY text; None if it has none."""
        from headrace.contracts.copy_text import compile_lines  # 10 ms, saved when a drain finds nothing

        return compile_lines(self.compiled)

    def refuse_file(self) -> None:
        """Raise DatasetError, with the command `load`, if the dataset's source is a file."""
        if self.source.is_file:
            load = Command("load", self.name)
            raise DatasetError(f"{self.name}: comes from a file, expected a topic; use `{load}`", command=load)

    @property
    def key_column(self) -> str | None:
        """The staging column of the key."""
        return self.key.lower() if self.key else None


def load_dataset(datasets_dir: Path, name: str) -> Dataset:
    """Import plugins/datasets/<name>.py and return its DATASET.

    Raises DatasetError if no such dataset is declared (the message names the declared ones) or its file cannot be used.
    """
    path = datasets_dir / f"{name}.py"
    if not NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(dataset_names(datasets_dir)) or "none"
        raise DatasetError(f"dataset {name!r}: not declared in {datasets_dir}; expected one of {known}")
    spec = importlib.util.spec_from_file_location(module_name(name), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic resolves annotations there
    try:
        spec.loader.exec_module(module)
    except DatasetError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit() in a declaration must not end the command with status 0
        raise DatasetError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    dataset = getattr(module, "DATASET", None)
    if not isinstance(dataset, Dataset) or dataset.name != name:
        raise DatasetError(f"{path}: expected `DATASET = Dataset(name={name!r}, ...)`, found {dataset!r}")
    return dataset


def module_name(name: str) -> str:
    """The name in sys.modules of a declaration; it is there also after the declaration raised an error."""
    return f"headrace_datasets_{name}"


def dataset_names(datasets_dir: Path) -> list[str]:
    """The names of all declared datasets, in alphabetical order; imports nothing."""
    return sorted(path.stem for path in datasets_dir.glob("*.py") if NAME.fullmatch(path.stem))


def field_contract(dataset: Dataset, column: Column) -> Contract:
    """The contract of a single field: the field's own validators, and the dataset's strictness."""
    info = dataset.contract.model_fields[column.field]
    validators: dict[str, Any] = {
        # pydantic has bound it to the class; create_model binds again, so it must be static
        name: field_validator(column.field, mode=found.info.mode)(staticmethod(found.func))
        for name, found in dataset.contract.__pydantic_decorators__.field_validators.items()
        if column.field in found.info.fields or "*" in found.info.fields
    }
    definition: Any = (info.annotation, info)
    model = create_model(
        f"{dataset.contract.__name__}{column.field}",
        __config__=CONTRACT_CONFIG,
        __validators__=validators,
        **{column.field: definition},
    )
    return Contract(
        model,
        zone=UTC if dataset.zone == "UTC" else ZoneInfo(dataset.zone),
        max_value_bytes=dataset.max_value_bytes + len(column.source_names[0].encode()) + 64,
        strict=dataset.strict,
    )
