"""The reasons for dead letters, each with one sentence; declarations may add their own.

A declaration adds reasons by PydanticCustomError, whose type is the reason.
"""

import re
from enum import StrEnum
from typing import Self


class Scope(StrEnum):
    """The subject of a reason."""

    RECORD = "any record"
    SCHEMA = "a record whose schema is in a registry"
    KEY = "a record whose key must equal a field"
    ROW = "a row of a table that is no document"
    CHANGE = "a change event of Debezium"
    FIELD = "a field"
    SERVER = "a row that Postgres does not store"


class Reason(StrEnum):
    """A reason, its scope and its meaning. `headrace describe` lists them in this order."""

    meaning: str
    scope: Scope

    def __new__(cls, word: str, scope: Scope, meaning: str) -> Self:
        """Make a member that is its word."""
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.scope, reason.meaning = scope, meaning
        return reason

    TOO_LARGE = "too_large", Scope.RECORD, "a value, a record or a text is longer than its limit"
    EMPTY_PAYLOAD = "empty_payload", Scope.RECORD, "the value has no characters but blanks; a tombstone has no value"
    INVALID_UTF8 = "invalid_utf8", Scope.RECORD, "the value's bytes are not UTF-8"
    INVALID_JSON = "invalid_json", Scope.RECORD, "the value is not JSON"
    UNDECODABLE = "undecodable", Scope.SCHEMA, "the value's bytes are not what its schema says"
    UNKNOWN_SCHEMA = "unknown_schema", Scope.SCHEMA, "the registry has no schema of the value's id"
    INCOMPATIBLE_SCHEMA = "incompatible_schema", Scope.SCHEMA, "the value's schema is of no kind that the format reads"
    DUPLICATE_KEY = "duplicate_key", Scope.RECORD, "a name is repeated in one object"
    NUL_CHARACTER = "nul_character", Scope.RECORD, "a text holds U+0000, which Postgres does not store"
    TOO_DEEP = "too_deep", Scope.RECORD, "objects and arrays are nested too deep"
    OUT_OF_RANGE = "out_of_range", Scope.RECORD, "a value is beyond a limit of the field or of its column"
    WRONG_TYPE = "wrong_type", Scope.RECORD, "a value does not convert to the field's type without loss"

    KEY_MISMATCH = "key_mismatch", Scope.KEY, "the record's key is not the one that its document names"
    MISSING_KEY = "missing_key", Scope.KEY, "a tombstone has no key"

    TRUNCATED = "truncated", Scope.CHANGE, "the source's table was truncated; no row is deleted"
    UNAVAILABLE_VALUE = (
        "unavailable_value",
        Scope.CHANGE,
        "the event lacks a field's value, which did not change: a large value of Postgres",
    )

    MALFORMED_ROW = "malformed_row", Scope.ROW, "a row of a .csv has more or fewer cells than its header, or bad quotes"

    MISSING_FIELD = "missing_field", Scope.FIELD, "a required field is absent"
    UNEXPECTED_FIELD = "unexpected_field", Scope.FIELD, "the contract forbids fields that it does not name"
    INVALID_VALUE = "invalid_value", Scope.FIELD, "a value is none of the choices, or not of the field's pattern"
    INVALID_TIMESTAMP = "invalid_timestamp", Scope.FIELD, "a text is not a date or a time"
    BUSINESS_RULE = "business_rule", Scope.FIELD, "a validator of the declaration refused the record"

    REJECTED_BY_POSTGRES = "rejected_by_postgres", Scope.SERVER, "the contract accepted the record, and COPY did not"

    @classmethod
    def of(cls, scope: Scope) -> "list[Reason]":
        """The reasons of a scope, in their order."""
        return [reason for reason in cls if reason.scope is scope]


# pydantic's error types: https://docs.pydantic.dev/latest/errors/validation_errors/
_OF_ERROR_TYPE = {
    "missing": Reason.MISSING_FIELD,
    "extra_forbidden": Reason.UNEXPECTED_FIELD,
    "literal_error": Reason.INVALID_VALUE,
    "enum": Reason.INVALID_VALUE,
    "string_pattern_mismatch": Reason.INVALID_VALUE,
    "string_too_long": Reason.TOO_LARGE,
    "bytes_too_long": Reason.TOO_LARGE,
    "too_long": Reason.TOO_LARGE,
    "too_short": Reason.OUT_OF_RANGE,
    "string_too_short": Reason.OUT_OF_RANGE,
    "bytes_too_short": Reason.OUT_OF_RANGE,
    "finite_number": Reason.OUT_OF_RANGE,
    "int_parsing_size": Reason.OUT_OF_RANGE,
    "int_from_float": Reason.WRONG_TYPE,
    "none_required": Reason.WRONG_TYPE,
    "timezone_naive": Reason.INVALID_TIMESTAMP,
    "timezone_aware": Reason.INVALID_TIMESTAMP,
    "value_error": Reason.BUSINESS_RULE,
    "assertion_error": Reason.BUSINESS_RULE,
}
_OUT_OF_RANGE = ("greater_than", "less_than", "decimal_", "multiple_of", "datetime_", "date_", "time_")


def reason_of(error_type: str) -> str:
    """The reason for an error type of pydantic's, or of a declaration's own PydanticCustomError."""
    if error_type in _OF_ERROR_TYPE:
        return _OF_ERROR_TYPE[error_type]
    if error_type.endswith(("_type", "_parsing")):
        return Reason.WRONG_TYPE
    if error_type.startswith(_OUT_OF_RANGE):
        return Reason.OUT_OF_RANGE
    # what is left is the type of a PydanticCustomError, which is the reason
    return error_type if re.fullmatch(r"[a-z][a-z0-9_]{0,60}", error_type) else Reason.BUSINESS_RULE
