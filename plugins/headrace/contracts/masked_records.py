"""The records of a contract with masks as dead letters hold them: key, value and headers, and why they were rejected.

The value of a dead letter is the record's JSON document with the masks in the places of the values. A value in which
no place can be found, because it is no JSON or no document, is not kept. A masked dead letter can be replayed: its
masks are then taken for the values, which were judged before.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from headrace.contracts import conversions, strict_json
from headrace.contracts.children import Children
from headrace.contracts.columns import Column
from headrace.contracts.copy_cells import escaped
from headrace.contracts.masks import HIDDEN, NOT_VALID, Mask, forms, mask_of
from headrace.contracts.places import Path, at, is_absent, replaced
from headrace.contracts.reasons import reason_of
from headrace.contracts.rejection import NOT_KEPT, Rejection, storable
from headrace.contracts.strict_json import Malformed
from headrace.exceptions import HeadraceError
from headrace.formats.base import Decoder, Undecodable
from headrace.record import Headers, KafkaRecord, Record

# the types of pydantic whose messages hold what a validator wrote
_WITH_TEXT = frozenset({"value_error", "assertion_error"})
_BUILT_IN = frozenset(get_args(ErrorType)) - _WITH_TEXT


class MaskedContract(Protocol):
    """What masks need of a contract."""

    model: type[BaseModel]
    columns: Sequence[Column]
    key_fields: tuple[str, ...]
    strict: bool
    max_value_bytes: int
    decoder: Decoder
    key_decoder: Decoder | None
    children: Children | None

    def stored(self, column: Column, value: Any) -> Any:
        """What a column would hold of a validated value, were it not masked."""


class MaskedRecords:
    """Masks the records of a contract.

    names: each masked field with how, as headrace.dead_letters.masked keeps them.
    """

    def __init__(self, contract: MaskedContract, key: bytes | None) -> None:
        self._contract = contract
        columns = [column for column in contract.columns if column.masked]
        self.names = [f"{column.field}={column.masked.how}" for column in columns if column.masked]
        self._masks: dict[str, Mask] = {
            column.field: mask_of(column.field, column.masked, key) for column in columns if column.masked
        }
        self._columns = columns
        self.is_key_masked = any(column.field in contract.key_fields for column in columns)
        self._validators: Mapping[str, Any] | None = None
        self._children = [
            child for child in (contract.children.each if contract.children else ()) if child.contract.masks
        ]
        self.can_be_replayed = conversions.judges_fields_alone(contract.model)
        for child in self._children:
            assert child.contract.masks is not None
            self.names += [f"{child.name}.{name}" for name in child.contract.masks.names]
            self.can_be_replayed = self.can_be_replayed and child.contract.masks.can_be_replayed

    def key(self, key: bytes | None, headers: Headers = ()) -> bytes | None:
        """A record's key as it is stored: masked if it is the masked field; None if its format cannot hold a mask."""
        if key is None or not self.is_key_masked:
            return key
        column = next(column for column in self._columns if column.field in self._contract.key_fields)
        decoder = self._contract.key_decoder
        if decoder is None:
            return self._text(column, key)
        if decoder.json_text is None:
            return None
        try:
            document = strict_json.parse_value(decoder.decode(key, headers).document)
        except (Undecodable, Malformed):
            return None
        if not isinstance(document, dict):
            return strict_json.dumps(self._masked(column, document))
        self.mask_members(document)
        return strict_json.dumps(document)

    def value(self, value: bytes | None, headers: Headers) -> bytes | None:
        """A record's value as a dead letter holds it; None for a tombstone, and for what is not kept."""
        found = self._document(value, headers)
        if value is None or found is None or self._contract.decoder.json_text is None:
            return None
        text, prefix, document = found
        head = value[: len(value) - len(str(text).encode())]
        if prefix is not None and self.is_key_masked:
            head = (self.key(prefix) or b"") + head[len(prefix) :]
        self.mask_members(document)
        try:
            return head + strict_json.dumps(document)
        except (Malformed, TypeError, ValueError):
            return None

    def record(self, record: Record, rejection: Rejection) -> tuple[Record, Rejection]:
        """A record and its rejection as its dead letter holds them."""
        key, value = self.key(record.key, record.headers), self.value(record.value, record.headers)
        masked = KafkaRecord(record.offset, record.timestamp, key, value, record.headers)
        if record.value is not None and value is None and NOT_KEPT not in rejection.detail:
            rejection = replace(rejection, detail=_not_kept(rejection.detail))
        return masked, replace(rejection, masked=self.names)

    def hidden(self, rejection: Rejection, value: bytes | None, headers: Headers) -> Rejection:
        """The rejection without the masked values of its record, and with a word if the value is not kept."""
        detail = rejection.detail
        found = self._document(value, headers)
        if found is None and self._contract.decoder.json_text is None:
            detail = f"{rejection.reason}: the message is {NOT_KEPT}"
        if found is not None:
            for text in sorted(self.texts(found[2]), key=len, reverse=True):
                detail = detail.replace(text, HIDDEN)
        return replace(rejection, detail=storable(detail))

    def _document(self, value: bytes | None, headers: Headers) -> tuple[Any, bytes | None, dict[str, Any]] | None:
        """A value's document as its format gives it, the key before it, and the document's members."""
        contract = self._contract
        if value is None or len(value) > contract.max_value_bytes:
            return None
        try:
            decoded = contract.decoder.decode(value, headers)
            found, prefix = decoded.document, decoded.prefix
            document = strict_json.parse(found) if isinstance(found, str) else found
        except (Undecodable, Malformed):
            return None
        return (found, prefix, dict(document)) if isinstance(document, Mapping) else None

    def cell_of(self, column: Column) -> Callable[[str], str]:
        """The mask of a value's text as COPY text, for fields whose values have no other text."""
        mask = self._masks[column.field]
        return lambda text: escaped(mask(text) or "")

    def mask_members(self, document: dict[str, Any]) -> None:
        """Put masks in the places of a document's values."""
        for child in self._children:
            child.mask(document)
        for column in self._columns:
            for names in _paths(self._contract.model, column):
                replaced(document, names, partial(self._masked, column))

    def texts(self, document: Mapping[str, Any]) -> Iterable[str]:
        """A document's masked values, as messages may quote them."""
        for child in self._children:
            yield from child.masked_texts(document)
        for column in self._columns:
            for names in _paths(self._contract.model, column):
                value = at(document, names)
                yield from (text for text in forms(None if is_absent(value) else value) if len(text) > 1)

    def _masked(self, column: Column, value: Any) -> str | None:
        """The mask of a value as a document holds it: what the column gets, or a word where that is null or none."""
        if value is None:
            return None
        try:
            stored = self._contract.stored(column, self._validator(column).validate_python(value))
        except HeadraceError:
            raise
        except Exception:  # of a validator's own, too
            return NOT_VALID
        if stored is None:
            return None
        return self._masks[column.field](stored) if column.masked and column.masked.how != "drop" else HIDDEN

    def _text(self, column: Column, key: bytes) -> bytes:
        """The mask of a key that is text: of the field's value, and of the bytes where they are none."""
        try:
            stored = self._contract.stored(column, self._validator(column).validate_python(key.decode()))
        except HeadraceError:
            raise
        except Exception:  # of a validator's own, too
            stored = key
        return (self._masks[column.field](stored) or HIDDEN).encode()

    def _validator(self, column: Column) -> Any:
        if self._validators is None:
            self._validators = conversions.field_validators(self._contract.model, strict=self._contract.strict)
        return self._validators[column.field]


def _not_kept(detail: str) -> str:
    return storable(f"{detail[:400]}; the value is {NOT_KEPT}: its masked fields cannot be found in it")


def _paths(model: type[BaseModel], column: Column) -> Iterable[tuple[str, ...]]:
    """Where a document may hold a field."""
    return [column.place.names] if isinstance(column.place, Path) else [(name,) for name in names_in(model, column)]


def names_in(model: type[BaseModel], column: Column) -> tuple[str, ...]:
    """The names under which a document may hold a field."""
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    return (*column.source_names, column.field) if by_name else column.source_names


def without_values(errors: Sequence[ErrorDetails], fields: Collection[str]) -> list[ErrorDetails]:
    """Pydantic's errors without the values of these fields, nor messages that may quote them."""
    return [_without_value(error) if not error["loc"] or error["loc"][0] in fields else error for error in errors]


def _without_value(error: ErrorDetails) -> ErrorDetails:
    hidden = error.copy()
    hidden["input"] = _Hidden()
    hidden["loc"] = error["loc"][:1]
    if error["type"] not in _BUILT_IN:
        hidden["msg"] = f"{reason_of(error['type'])}: the message is not kept"
    return hidden


class _Hidden:
    def __repr__(self) -> str:
        return HIDDEN
