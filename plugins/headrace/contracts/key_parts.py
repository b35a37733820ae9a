"""Keys of several fields: a record's key is JSON, or of a format, and is compared field by field."""

from collections.abc import Callable, Mapping
from typing import Any

from headrace.contracts.column_types import Unstorable
from headrace.contracts.columns import Column
from headrace.contracts.masks import HIDDEN
from headrace.contracts.places import Key, Path, at, is_absent
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, json_path, shown, storable


class KeyParts:
    """The fields of a key by their index in a row.

    value_of: from such an index and what a key holds to what the column gets; raises ValueError, ArithmeticError or
    Unstorable where that is no value of the field.
    """

    def __init__(self, columns: Mapping[int, Column], value_of: Callable[[int, Any], Any]) -> None:
        self._columns = columns
        self._value_of = value_of

    def mismatch(self, key: Any, row: list[Any]) -> Rejection | None:
        """The rejection of a record whose key is not its document's; None if each field is equal."""
        for index, column in self._columns.items():
            if isinstance(column.place, Key):
                continue  # the document does not have it
            value = self._value(key, index, column)
            if isinstance(value, Rejection):
                return value
            if value != row[index]:
                found, expected = (HIDDEN, "its own") if column.masked else (shown(value), shown(row[index]))
                return _rejected(column, f"found {column.field} {found} in the key, expected {expected}")
        return None

    def fill(self, key: Any, row: list[Any]) -> Rejection | None:
        """Put the key of a tombstone into its row; return its rejection if a field is missing or none."""
        for index, column in self._columns.items():
            value = self._value(key, index, column)
            if isinstance(value, Rejection):
                return value
            row[index] = value
        return None

    def _value(self, key: Any, index: int, column: Column) -> Any:
        if isinstance(column.place, Key | Path):  # the latter in the document of a row that was deleted
            names = [column.place.names]
        else:
            names = [(name,) for name in column.source_names]
        raw = next((found for each in names if not is_absent(found := at(key, each))), None)
        try:
            if raw is not None and (value := self._value_of(index, raw)) is not None:
                return value
        except (ValueError, ArithmeticError, Unstorable):
            return _rejected(column, f"found {HIDDEN if column.masked else shown(raw)}, no {column.field}, in the key")
        return _rejected(column, f"the key has no {column.field}, expected all of its fields")


def _rejected(column: Column, detail: str) -> Rejection:
    return Rejection(Reason.KEY_MISMATCH, storable(detail), json_path((column.field,)))
