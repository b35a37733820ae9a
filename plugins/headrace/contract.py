"""The types and helpers for a declaration's contract; declarations import them from here."""

from headrace.contracts.contract import Contract, Row
from headrace.contracts.debezium_types import (
    EpochDate,
    JsonText,
    MicroTime,
    MicroTimestamp,
    MilliTime,
    MilliTimestamp,
    NanoTime,
    NanoTimestamp,
    scaled,
)
from headrace.contracts.flattened import Flatten
from headrace.contracts.masks import Masked
from headrace.contracts.places import Header, Key, Path
from headrace.contracts.rejection import Rejection, storable
from headrace.contracts.times import parse_epoch_ms, parse_timestamp
from headrace.contracts.types import (
    Boolean,
    Date,
    EpochMilliseconds,
    EpochSeconds,
    Float,
    Identifier,
    Integer,
    Money,
    Numeric,
    Text,
    TimeOfDay,
    Timestamp,
)

__all__ = [
    "Boolean",
    "Contract",
    "Date",
    "EpochDate",
    "EpochMilliseconds",
    "EpochSeconds",
    "Flatten",
    "Float",
    "Header",
    "Identifier",
    "Integer",
    "JsonText",
    "Key",
    "Masked",
    "MicroTime",
    "MicroTimestamp",
    "MilliTime",
    "MilliTimestamp",
    "Money",
    "NanoTime",
    "NanoTimestamp",
    "Numeric",
    "Path",
    "Rejection",
    "Row",
    "Text",
    "TimeOfDay",
    "Timestamp",
    "parse_epoch_ms",
    "parse_timestamp",
    "scaled",
    "storable",
]
