"""A compiled contract: a record's key and value become a row, or a rejection with its reason.

A contract is a pydantic model. A document is parsed once, exactly (strict_json); the model validates what was parsed,
behind lossless conversions (conversions); and the columns get what the
model holds then, also where validators changed it. Nothing is looked up in the document again.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaError, SchemaValidator

from headrace.contracts import conversions, rejection, strict_json
from headrace.contracts.annotations import InvalidColumn
from headrace.contracts.children import Children, ParentRow
from headrace.contracts.column_types import Unstorable, store_document
from headrace.contracts.columns import Column, columns_of
from headrace.contracts.faults import lacking, malformed, undecodable
from headrace.contracts.flattened import Leftovers
from headrace.contracts.key_columns import key_faults
from headrace.contracts.key_parts import KeyParts
from headrace.contracts.masked_records import MaskedRecords, names_in, without_values
from headrace.contracts.masks import HIDDEN, masked_before
from headrace.contracts.places import Key, Places, at, key_document, located
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, storable
from headrace.contracts.storing import storing, storing_unmasked
from headrace.contracts.strict_json import Malformed
from headrace.exceptions import DatasetError, HeadraceError
from headrace.formats import JSON, Debezium, Format
from headrace.formats.base import ChangeDecoder, Decoder, Undecodable
from headrace.record import Headers

Row = list[Any]  # the contract's columns in order, then _extra as JSON text or None; a ParentRow of one with children


class Deletion(Row):
    """A row that deletes its key: of a tombstone, or of a deletion's change event. Only the key has values."""


class Contract:
    """A compiled pydantic model.

    key: the field that identifies an entity, or several that do together; None if there is none.
    keyed: whether a record's key must equal it; the lines of a file have no keys.
    zone: the time zone of times that name none.
    max_value_bytes: a longer value is a dead letter, `too_large`.
    strict: accept only JSON's own types: no "5" for 5.
    format, key_format: how values and keys are decoded; without the latter a key is the text of the field's value.
    children: the arrays whose elements are rows of their own; None if there are none.
    masking_key: the key of the masks. is_of_masked: decode dead letters, whose masked fields hold masks.
    has_schema_ids: whether rows have the id of a schema behind them.
    json_columns: the indexes of a row's JSON columns.
    key_index: the index of the field that a record's key must equal; None if there is none, or several are.
    places: of fields that are not under a name of the document; None if there are none. leftovers: of what flattened
    models do not name; likewise.
    changes: the decoder, if values are change events. has_positions: whether these order the versions of a row.

    Raises DatasetError with all faults of the model.
    """

    def __init__(
        self,
        model: type[BaseModel],
        *,
        key: str | Sequence[str] | None = None,
        keyed: bool = True,
        zone: tzinfo = UTC,
        max_value_bytes: int = 1024 * 1024,
        strict: bool = False,
        format: Format = JSON,
        key_format: Format | None = None,
        masking_key: bytes | None = None,
        is_of_masked: bool = False,
        children: Children | None = None,
    ) -> None:
        self.model = model
        self.zone = zone
        self.max_value_bytes = max_value_bytes
        self.strict = strict or bool(model.model_config.get("strict"))
        self.has_schema_ids = format.has_schema_ids
        self.decoder = format.decoder()
        self.changes = self.decoder if isinstance(self.decoder, ChangeDecoder) else None
        self.has_positions = isinstance(format, Debezium) and format.versions == "position"
        if key_format is None and isinstance(format, Debezium):
            key_format = format.key_format
        self.key_decoder = key_format.decoder() if key_format is not None else None
        model.model_rebuild(_types_namespace={})  # CONTRACT_CONFIG defers pydantic's own schemas
        columns, faults = columns_of(model)
        self.columns: Sequence[Column] = tuple(columns)
        fields = [column.field for column in columns]
        self.key_fields = (key,) if isinstance(key, str) else tuple(key or ())
        faults += key_faults(model, columns, self.key_fields)
        self.places = Places(columns) if any(column.place for column in columns) else None
        self.leftovers = Leftovers(columns) if any(column.inner for column in columns) else None
        is_structured = len(self.key_fields) > 1 or (self.places is not None and self.places.read_key_documents)
        if self.key_decoder is None and is_structured:
            self.key_decoder = JSON.decoder()
        if self.decoder.json_text is not None and self.decoder.json_text.separator and is_structured:
            faults.append("the format has keys that are text before the document, expected none beside a key of fields")
        try:
            aliases = {each.field: each.place.alias for each in columns if each.place}
            checks = {each.field: masked_before(each.masked) for each in columns if each.masked and is_of_masked}
            validator = conversions.validator(model, strict=self.strict, checks=checks, aliases=aliases)
            self._validate = validator.validate_python
        except (InvalidColumn, SchemaError) as error:
            faults.append(str(error))
        if faults:
            raise DatasetError(f"{model.__name__}: {'; '.join(faults)}")
        by_name = {column.field: column for column in columns}
        indexes = [fields.index(name) for name in self.key_fields if keyed]
        self.key_index = indexes[0] if len(indexes) == 1 else None
        self.key_parts = KeyParts({i: columns[i] for i in indexes}, self._value_of) if len(indexes) > 1 else None
        self._deleted = KeyParts(
            {fields.index(name): by_name[name] for name in self.key_fields if name in by_name}, self._value_of
        )
        self.json_columns: Sequence[int] = [i for i, column in enumerate(columns) if column.sql_type == "jsonb"]
        is_json = self.decoder.json_text is not None
        self._stores = [(column.field, storing(column, zone, masking_key, is_json=is_json)) for column in columns]
        self._store_extra = strict_json.dumps if is_json else partial(store_document, "_extra", "jsonb", zone)
        self._reads_keys = self.key_parts is not None or (self.places is not None and self.places.read_keys)
        self._key_validators: Mapping[str, SchemaValidator] | None = None
        self._checks = checks
        self._masked_names = frozenset(name for column in columns if column.masked for name in names_in(model, column))
        # a dead letter's masks tell nothing
        hidden = () if is_of_masked else [column.field for column in columns if column.masked]
        self._masked_fields = self._masked_names.union(hidden) if hidden else frozenset()
        self.children = children
        is_masked = bool(self._masked_names) or (children is not None and children.are_masked)
        masks = MaskedRecords(self, masking_key) if is_masked and not is_of_masked else None
        self.masks: MaskedRecords | None = masks

    def decode(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Row | Rejection:
        """Turn a record into a row or a rejection; raises nothing because of a record or a validator.

        A tombstone (value None) gives a row with only its key. Raises RetriableError or PermanentError if the format's
        registry does not answer: then nothing is known about the record.
        """
        decoded = self._decode(key, value, headers)
        if self.masks is not None and isinstance(decoded, Rejection):
            return self.masks.hidden(decoded, value, headers)
        return decoded

    def _decode(self, key: bytes | None, value: bytes | None, headers: Headers) -> Row | Rejection:
        if value is None:
            return self._tombstone(key, headers)
        if len(value) > self.max_value_bytes:
            return Rejection(Reason.TOO_LARGE, f"value has {len(value)} bytes, expected at most {self.max_value_bytes}")
        try:
            document, prefix, _, change = self.decoder.decode(value, headers)
        except Undecodable as error:
            return undecodable(error)
        if change is not None and change.is_deletion:
            return self._deletion(document, key, headers)
        key_document = self._key_document(key, headers) if self._reads_keys else None
        row = key_document if isinstance(key_document, Rejection) else self._row(document, key_document, headers)
        if change is not None and change.unavailable and (found := lacking(change, self.columns, self.children)):
            return found
        if isinstance(row, Rejection):
            return row
        if self.key_parts is not None:
            return self.key_parts.mismatch(key_document, row) or row
        if self.key_index is None or isinstance(self.columns[self.key_index].place, Key):
            return row
        return self._other_key(key, prefix, row[self.key_index], headers) or row

    def is_text(self, document: Any) -> bool:
        """Whether a document is JSON text."""
        return self.decoder.json_text is not None or (self.changes is not None and isinstance(document, str))

    def _key_document(self, key: bytes | None, headers: Headers) -> Any:
        """A record's key, decoded, if fields are compared with it or come from it; or the rejection of the record."""
        try:
            return key_document(key, self.key_decoder, headers)
        except Undecodable as error:
            return undecodable(error, "the record's key: ")
        except Malformed as error:
            return Rejection(error.reason, storable(f"the record's key: {error.detail}"), "key")

    def _row(self, document: Any, key: Any, headers: Headers) -> Row | Rejection:
        try:
            if self.is_text(document):
                document = strict_json.parse(document)
            elif not isinstance(document, Mapping):
                raise Malformed(Reason.WRONG_TYPE, f"expected a record, found {rejection.shown(document)}")
        except Malformed as error:
            return malformed(error)
        if self.children is None:
            return self.row_of(document, key, headers)
        row = self.row_of(self.children.without(document), key, headers)
        if isinstance(row, Rejection):
            return row
        elements = self.children.rows(document)
        return elements if isinstance(elements, Rejection) else ParentRow(row, elements)

    def row_of(self, document: Mapping[str, Any], key: Any = None, headers: Headers = ()) -> Row | Rejection:
        """Turn a document into a row without elements, or a rejection; raises what `decode` does."""
        try:
            if self.places is not None:
                document = self.places.placed(document, key, headers)
            model = self._validate(document)
            if not isinstance(model, self.model):
                raise TypeError(f"a validator returned {type(model).__name__}, expected {self.model.__name__}")
            values, extra = model.__dict__, model.__pydantic_extra__
            row = [store(values.get(field)) for field, store in self._stores]
            if extra and self._masked_names:  # under an alias that did not count
                extra = {name: value for name, value in extra.items() if name not in self._masked_names}
            if self.leftovers is not None:
                extra = self.leftovers.added(model, extra)
            row.append(self._store_extra(extra) if extra else None)
        except Malformed as error:
            return malformed(error)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            errors = without_values(errors, self._masked_fields) if self._masked_fields else errors
            return rejection.of_errors(errors if self.places is None else located(errors))
        except Unstorable as error:
            detail = f"{error.field}: not storable" if error.field in self._masked_fields else error.detail
            return Rejection(error.reason, storable(detail), rejection.json_path(tuple(error.field.split("."))))
        except HeadraceError:
            raise
        except (Exception, SystemExit) as error:
            # raised by the contract's own code: this record is rejected, the next one is decoded
            if isinstance(error, MemoryError):
                raise
            return rejection.of_exception(error, is_hidden=bool(self._masked_names))
        return row

    def _other_key(self, key: bytes | None, prefix: bytes | None, value: Any, headers: Headers) -> Rejection | None:
        """The rejection for a record whose key is not its document's."""
        if self.key_decoder is not None:
            return self._other_decoded_key(self.key_decoder, key, value, headers)
        expected = str(value).encode()
        for found in (key, prefix) if prefix is not None and key is not None else (key if prefix is None else prefix,):
            if found != expected and not self._is_same_key(found, value):
                return self._key_mismatch(found, expected)
        return None

    def has_key(self, key: bytes | None, value: Any) -> bool:
        """Whether a record's key is its document's, whose key field has this value."""
        return self._other_key(key, None, value, ()) is None

    def _other_decoded_key(self, decoder: Decoder, key: bytes | None, value: Any, headers: Headers) -> Rejection | None:
        try:
            is_same = key is not None and self._decoded_key(decoder, key, headers) == value
        except Undecodable as error:
            return undecodable(error, "the record's key: ")
        except HeadraceError:
            raise
        except Exception:  # no value of the field, or a validator's own error
            is_same = False
        return None if is_same else self._key_mismatch(key, str(value).encode())

    def _decoded_key(self, decoder: Decoder, key: bytes, headers: Headers) -> Any:
        """The key field's value of a record's key; raises Undecodable, ValueError or Unstorable where it is none."""
        document = decoder.decode(key, headers).document
        if isinstance(document, str) and decoder.json_text is not None:
            document = strict_json.parse_value(document)
        column = self.columns[self.key_index or 0]
        if isinstance(column.place, Key):
            document = at(document, column.place.names)
        elif isinstance(document, Mapping):
            names = self.columns[self.key_index or 0].source_names
            # the one field of a text, or of a record that names it in another way, needs no name
            name = next((name for name in names if name in document), None)
            document = document[name] if name is not None else _only_value(document)
        return self._key_value(document)

    def _is_same_key(self, key: bytes | None, value: Any) -> bool:
        try:
            if key is None or (self.strict and not self.columns[self.key_index or 0].masked) or len(key) >= 4_300:
                return False
            return bool(self._key_value(key.decode()) == value)
        except (ValueError, Unstorable, ArithmeticError):
            return False

    def _key_value(self, key: Any) -> Any:
        """The key field's value of a key that was decoded; raises ValueError or Unstorable where it is none."""
        return self._value_of(self.key_index or 0, key)

    def _value_of(self, index: int, key: Any) -> Any:
        if self._key_validators is None:
            self._key_validators = conversions.field_validators(self.model, checks=self._checks)
        return self._stores[index][1](self._key_validators[self.columns[index].field].validate_python(key))

    def stored(self, column: Column, value: Any) -> Any:
        """What a column would hold of a validated value, were it not masked; raises Unstorable where it holds none."""
        return storing_unmasked(column, self.zone, is_json=self.decoder.json_text is not None)(value)

    def _deletion(self, document: Any, key: bytes | None, headers: Headers) -> Row | Rejection:
        """The row of an event that deletes; its key is the record's, or that of the row before."""
        if not self.key_fields or (key is not None and (self.key_index is not None or self.key_parts is not None)):
            return self._tombstone(key, headers)
        row = Deletion([None] * (len(self.columns) + 1))
        try:
            document = strict_json.parse(document) if self.is_text(document) else document
        except Malformed as error:
            return Rejection(error.reason, storable(error.detail))
        return self._deleted.fill(document, row) or row

    def _tombstone(self, key: bytes | None, headers: Headers) -> Row | Rejection:
        row = Deletion([None] * (len(self.columns) + 1))
        if self.key_parts is not None and key is not None:
            document = self._key_document(key, headers)
            return document if isinstance(document, Rejection) else self.key_parts.fill(document, row) or row
        if key is None and (self.key_index is not None or self.key_parts is not None):
            fields = " and ".join(self.key_fields)
            return Rejection(Reason.MISSING_KEY, f"a tombstone without a key, expected {fields} as its key")
        if self.key_index is None or key is None:
            return row
        column = self.columns[self.key_index]
        try:
            if self.key_decoder is not None:
                row[self.key_index] = self._decoded_key(self.key_decoder, key, headers)
            else:
                row[self.key_index] = self._key_value(key.decode())
            if row[self.key_index] is None:
                raise ValueError("expected a value")
        except Undecodable as error:
            return undecodable(error, "the record's key: ")
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
        except Unstorable as error:
            message = error.detail
        except HeadraceError:
            raise
        except Exception as error:  # no text, or a validator's own
            message = str(error)
        else:
            return row
        found = HIDDEN if column.masked else f"{key[:60]!r}"
        message = "not valid" if column.masked else message
        return Rejection(Reason.KEY_MISMATCH, storable(f"tombstone key {found} is no {column.field}: {message}"))

    def _key_mismatch(self, key: bytes | None, expected: bytes) -> Rejection:
        column = self.columns[self.key_index or 0]
        found = "no key" if key is None else f"key {HIDDEN if column.masked else repr(key[:60])}"
        wanted = column.field if column.masked else f"{column.field} {expected[:60]!r}"
        return Rejection(Reason.KEY_MISMATCH, storable(f"found {found}, expected {wanted}"), f"$.{column.field}")


def _only_value(document: Mapping[str, Any]) -> Any:
    if len(document) != 1:
        raise ValueError(f"found {len(document)} fields, expected the key's alone or one")
    return next(iter(document.values()))
