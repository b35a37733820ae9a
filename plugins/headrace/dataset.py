"""A dataset's declaration: its contract, where its records come from, and its limits.

One file in plugins/datasets/ holds a pydantic model and one `DATASET = Dataset(...)`. The staging table, the DAG,
the command line and the documentation follow from it.
"""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from headrace.command import Command
from headrace.contracts import masks
from headrace.contracts.annotations import has_mark
from headrace.contracts.changes import Changes
from headrace.contracts.children import Child as Child
from headrace.contracts.children import Children, compile_children
from headrace.contracts.columns import columns_of
from headrace.contracts.contract import Contract, Row
from headrace.contracts.places import Header, Key
from headrace.contracts.rejection import Rejection
from headrace.contracts.where import Where, parse
from headrace.dataset_files import NAME as NAME
from headrace.dataset_files import dataset_names as dataset_names
from headrace.dataset_files import not_declared
from headrace.exceptions import DatasetError
from headrace.formats import JSON, Debezium, Format
from headrace.record import Record
from headrace.settings import Settings
from headrace.sources.declarations import File as File
from headrace.sources.declarations import KafkaTopic as KafkaTopic
from headrace.sources.declarations import KafkaTopics as KafkaTopics
from headrace.sources.declarations import RedisStream as RedisStream
from headrace.sources.declarations import SourceDeclaration

if TYPE_CHECKING:
    from headrace.contracts.copy_text import Binder


MAX_DEAD_PERCENT = 10.0  # without a declared max_dead_percent
CHILD_TABLE_LENGTH_MAX = 50  # a name in Postgres has 63, and names of objects made for a table are longer
MASKS_BYTES_MAX = 64 * 1024  # by which the masks of a dead letter may be longer than its values

PRIORITY_MAX = 1_000_000  # Airflow adds the weights of tasks to a 32-bit number

# allow: fields that the contract does not name are kept in _extra, never dropped, also without this config.
# defer_build: who decodes nothing, such as Airflow when it parses DAG files, does not wait for pydantic's schemas
CONTRACT_CONFIG = ConfigDict(extra="allow", allow_inf_nan=False, defer_build=True)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset: its name, contract, source and limits.

    key: the contract's field that identifies an entity, or several that do together; None if records do not describe
    entities.
    keyed: whether a Kafka record's key must equal that field. Defaults to True.
    time_column: the contract's field that holds the time of the event; marts group by it.
    zone: the time zone of times that name none. Defaults to UTC.
    format: how the bytes of a value encode its document (headrace.formats). Defaults to Json().
    key_format: how the bytes of a key encode it. Defaults to none: a key is the text of the field's value.
    where: which records belong to the dataset, if several share the source: "$.type = 'order'", "header.type = 'order'"
    or "schema = 'com.acme.Order'". The others are counted as ignored. Defaults to all.
    strict: accept only JSON's own types: no "5" for 5, no 5 for a text. Defaults to False: a value that converts to
    the field's type without loss is accepted.
    children: arrays whose elements are rows of tables of their own. Defaults to none.
    max_value_bytes: a longer value is a dead letter. Defaults to 1 MiB.
    schedule_s: seconds between the runs of its DAG. Defaults to 60.
    max_records_per_s: a run reads at most so many records per second, all of its processes together. Defaults to no
    limit.
    priority: the highest is drained first where several datasets wait, and is the priority_weight of the DAG's tasks.
    Defaults to 1.
    dag: datasets with the same one share the DAG ingest_<dag>. Defaults to none: the dataset has ingest_<name>.
    max_lag: more unread records are a problem, and the DAG check_freshness fails. Defaults to no limit.
    max_freshness_s: a record that is older and not yet in every mart is a problem; the DAG check_freshness fails.
    Defaults to no limit.
    max_dead_percent: dead letters are a warning; if more than this share of an hour's records are, an error. Defaults
    to 10.
    """

    name: str
    contract: type[BaseModel]
    source: SourceDeclaration
    key: str | tuple[str, ...] | None = None
    keyed: bool = True
    time_column: str | None = None
    zone: str = "UTC"
    format: Format = JSON
    key_format: Format | None = None
    strict: bool = False
    max_value_bytes: int = 1024 * 1024
    schedule_s: int = 60
    max_records_per_s: float | None = None
    priority: int = 1
    dag: str | None = None
    max_lag: int | None = None
    max_freshness_s: float | None = None
    max_dead_percent: float = MAX_DEAD_PERCENT
    where: str | None = None
    description: str = ""
    children: tuple[Child, ...] = ()
    masking_key: bytes | None = field(default=None, repr=False)  # of the deployment: see `connected`

    def __post_init__(self) -> None:
        faults = [
            f"expected a {role} that matches {NAME.pattern}, found {name!r}"
            for role, name in (("name", self.name), ("dag", self.dag))
            if name is not None and not NAME.fullmatch(name)
        ]
        for role, name in (*(("key", name) for name in self.key_fields), ("time_column", self.time_column)):
            if name is not None and name not in self.contract.model_fields:
                faults.append(f"{role} {name!r} is not a field of {self.contract.__name__}")
        faults += self._numbers_faults()
        if self.format.has_schema_ids and not self.source.has_record_keys:
            faults.append(f"format is {self.format.name}, expected one without a registry: only topics have others")
        elif isinstance(self.format, Debezium) and self.source.kind != "topic":
            faults.append(f"format is {self.format.name}, expected one of documents: only topics have change events")
        has_part = has_mark(self.contract, Key)
        is_compared = bool(self.key) and self.keyed
        if self.key_format is not None and not ((is_compared or has_part) and self.source.has_record_keys):
            faults.append("key_format is set, expected a key that the records of a topic carry too")
        if self.where is not None:
            try:
                parse(self.where, has_schemas=self.format.has_schema_ids)
            except DatasetError as fault:
                faults.append(str(fault))
        try:
            self._zone()
        except (ValueError, OSError):
            faults.append(f"zone is {self.zone!r}, expected a name such as Europe/Berlin")
        if faults:
            raise DatasetError(f"{self.name}: {'; '.join(faults)}")

    def _numbers_faults(self) -> Iterator[str]:
        for limit in ("schedule_s", "max_records_per_s", "max_lag", "max_freshness_s"):
            value = getattr(self, limit)
            if value is not None and not value > 0:  # nor nan
                yield f"{limit} is {value}, expected more than 0"
        if not 0 <= self.max_dead_percent <= 100:
            yield f"max_dead_percent is {self.max_dead_percent}, expected 0 to 100"
        if not isinstance(self.priority, int) or abs(self.priority) > PRIORITY_MAX:
            yield f"priority is {self.priority!r}, expected a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"

    def _zone(self) -> tzinfo:
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    def second(self) -> "Dataset":
        """The dataset with a reader of values other than the loader's, for `verify --deep`."""
        return replace(self, format=self.format.second())

    @cached_property
    def compiled(self) -> Contract:
        """The contract, compiled; it decodes records."""
        contract = self._compiled()
        for child in contract.children.each if contract.children is not None else ():
            if len(table := self.child_table_name(child.name)) > CHILD_TABLE_LENGTH_MAX:
                raise DatasetError(
                    f"{self.name}: child {child.name!r} has a table of {len(table)} characters, {table}, expected at "
                    f"most {CHILD_TABLE_LENGTH_MAX}; give it a shorter name"
                )
            if taken := {column.name for column in child.contract.columns} & set(self.key_columns):
                raise DatasetError(
                    f"{self.name}: child {child.name!r} has a field {sorted(taken)[0]!r} as the key has; marts show "
                    "both; give it another name and Field(validation_alias=...)"
                )
        if self.source.is_file and (self.where is not None or self.dag is not None):
            role = "dag" if self.where is None else "where"
            raise DatasetError(f"{self.name}: {role} is set, expected none: a file is not shared")
        for column in contract.columns:
            if isinstance(column.place, Header | Key) and not self.source.has_record_keys:
                raise DatasetError(
                    f"{self.name}: field {column.field!r} is in a {type(column.place).__name__.lower()}, which records "
                    f"of a {self.source.kind} do not have"
                )
            if column.masked and column.field == self.time_column:
                raise DatasetError(f"{self.name}: time_column {column.field!r} is masked, expected one that is stored")
            if column.inner and column.field == self.time_column:
                raise DatasetError(f"{self.name}: time_column {column.field!r} is flattened, expected one column")
        return contract

    @cached_property
    def filter(self) -> Where | Changes | None:
        """Tells which records of the source do not belong to the dataset; None if all do."""
        where = None if self.where is None else Where(self.where, self.compiled)
        changes = self.compiled.changes
        return where if changes is None else Changes(self.compiled, changes, where)

    @cached_property
    def of_masked(self) -> Contract:
        """The contract for masked dead letters, which takes masks for values."""
        return self._compiled(is_of_masked=True)

    def _compiled(self, *, is_of_masked: bool = False) -> Contract:
        def compiled(model: type[BaseModel], **options: Any) -> Contract:
            return Contract(
                model,
                zone=self._zone(),
                max_value_bytes=self.max_value_bytes + (MASKS_BYTES_MAX if is_of_masked else 0),
                strict=self.strict,
                format=self.format,
                masking_key=self.masking_key,
                is_of_masked=is_of_masked,
                **options,
            )

        children: Children | None = None
        if self.children:
            children = compile_children(self.children, compiled, columns_of(self.contract)[0])
        return compiled(
            self.contract,
            key=self.key,
            keyed=self.keyed and self.source.has_record_keys,
            key_format=self.key_format,
            children=children,
        )

    def connected(self, settings: Settings) -> "Dataset":
        """The dataset of a deployment, whose formats find their registry, and whose masks their key.

        Raises SettingError for a key that is too short; `require_masking_key` for one that is missing.
        """
        format = self.format.connected(settings)
        key_format = self.key_format.connected(settings) if self.key_format is not None else None
        masking_key = masks.key_of(settings.masking_key) if self.is_keyed_by_setting else None
        if format is self.format and key_format is self.key_format and masking_key is None:
            return self
        return replace(self, format=format, key_format=key_format, masking_key=masking_key)

    @property
    def asks_registry(self) -> bool:
        """Whether a format of it reads schemas of a registry."""
        formats = [self.format] if self.key_format is None else [self.format, self.key_format]
        return any(format.connected(Settings()) is not format for format in formats)

    @property
    def is_keyed_by_setting(self) -> bool:
        """Whether a mask of the contract needs HEADRACE_MASKING_KEY."""
        return self._has_masks and bool(self._keyed_by_setting)

    @property
    def _has_masks(self) -> bool:
        """Whether a field says Masked; the contract is not compiled for it."""
        models = (self.contract, *(child.contract for child in self.children))
        return any(has_mark(model, masks.Masked) for model in models)

    @property
    def _keyed_by_setting(self) -> list[str]:
        """The fields of the contract and of its children whose mask needs the key."""
        children = self.compiled.children
        found = [(self.name, self.compiled.columns)]
        for child in children.each if children is not None else ():
            found.append((self.child_table_name(child.name), child.contract.columns))
        hmac = masks.Masked("hmac")
        return [f"{name}.{column.field}" for name, columns in found for column in columns if column.masked == hmac]

    def require_masking_key(self) -> None:
        """Raise SettingError where a mask has no key; called before anything is written."""
        if self._keyed_by_setting and self.masking_key is None:
            raise masks.no_key(self._keyed_by_setting)

    @property
    def masking_key_id(self) -> str | None:
        """Tells the keys of its masks apart; None if no mask needs one. Raises as `require_masking_key`."""
        self.require_masking_key()
        return masks.key_id(self.masking_key) if self.masking_key is not None else None

    @cached_property
    def copy_line_binder(self) -> "Binder | None":
        """The contract's fast path from records to lines of COPY text; None if it has none."""
        from headrace.contracts.copy_text import compile_lines  # 10 ms, saved when a drain finds nothing

        return None if self.children else compile_lines(self.compiled)

    def decode_masked(self, record: Record, rejection: Rejection) -> Row | Rejection:
        """Decode a dead letter whose masked fields hold masks; its own rejection where it cannot be judged again.

        rejection: with what is masked. That must be what the contract masks, and each field must be judged alone: a
        validator that sees several fields would see masks.
        """
        masks = self.compiled.masks
        if masks is None or masks.names != rejection.masked or not masks.can_be_replayed:
            return rejection
        return self.of_masked.decode(record.key, record.value, record.headers)

    def refuse_file(self) -> None:
        """Raise DatasetError, with the command `load`, if the dataset's source is a file."""
        if self.source.is_file:
            load = Command("load", self.name)
            raise DatasetError(f"{self.name}: comes from a file, expected a topic; use `{load}`", command=load)

    def child_table_name(self, child: str) -> str:
        """The name of a child's staging table."""
        return f"{self.name}__{child}"

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The fields of the key: none, one or several."""
        return (self.key,) if isinstance(self.key, str) else self.key or ()

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The staging columns of the key."""
        return tuple(name.lower() for name in self.key_fields)

    @property
    def key_column(self) -> str | None:
        """The staging column of a key of one field."""
        return self.key_columns[0] if len(self.key_columns) == 1 else None


def load_dataset(datasets_dir: Path, name: str) -> Dataset:
    """Import plugins/datasets/<name>.py and return its DATASET.

    Raises DatasetError if no such dataset is declared (the message names the declared ones) or its file cannot be used.
    """
    path = datasets_dir / f"{name}.py"
    if not NAME.fullmatch(name) or not path.is_file():
        raise not_declared(datasets_dir, name)
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
    for child in dataset.children:
        if (datasets_dir / f"{dataset.child_table_name(child.name)}.py").is_file():
            taken = dataset.child_table_name(child.name)
            raise DatasetError(f"{path}: child {child.name!r} has the table of dataset {taken}, expected another name")
    return dataset


def module_name(name: str) -> str:
    """The name in sys.modules of a declaration; it is there also after the declaration raised an error."""
    return f"headrace_datasets_{name}"
