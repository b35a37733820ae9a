"""A compiled contract: a record's key and value become a row, or a rejection with its reason.

A contract is a pydantic model. A document is parsed once, exactly (strict_json); the model validates what was parsed,
behind lossless conversions (conversions); and the columns get what the
model holds then, also where validators changed it. Nothing is looked up in the document again.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaError, SchemaValidator

from headrace.contracts import conversions, rejection, strict_json
from headrace.contracts.column_types import Unstorable, column_type, store_document
from headrace.contracts.columns import Column, InvalidColumn, columns_of, key_fault
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, storable
from headrace.contracts.strict_json import Malformed
from headrace.exceptions import DatasetError, HeadraceError
from headrace.formats import JSON, Format
from headrace.formats.base import Decoder, Undecodable
from headrace.record import Headers

Row = list[Any]  # the contract's columns in order, then _extra as JSON text or None


class Contract:
    """A compiled pydantic model.

    key: the field that identifies an entity; None if there is none.
    keyed: whether a record's key must equal it; the lines of a file have no keys.
    zone: the time zone of times that name none.
    max_value_bytes: a longer value is a dead letter, `too_large`.
    strict: accept only JSON's own types: no "5" for 5.
    format, key_format: how values and keys are decoded; without the latter a key is the text of the field's value.
    has_schema_ids: whether rows have the id of a schema behind them.
    json_columns: the indexes of a row's JSON columns.
    key_index: the index of the field that a record's key must equal; None if there is none.

    Raises DatasetError with all faults of the model.
    """

    def __init__(
        self,
        model: type[BaseModel],
        *,
        key: str | None = None,
        keyed: bool = True,
        zone: tzinfo = UTC,
        max_value_bytes: int = 1024 * 1024,
        strict: bool = False,
        format: Format = JSON,
        key_format: Format | None = None,
    ) -> None:
        self.model = model
        self.zone = zone
        self.max_value_bytes = max_value_bytes
        self.strict = strict or bool(model.model_config.get("strict"))
        self.has_schema_ids = format.has_schema_ids
        self.decoder = format.decoder()
        self.key_decoder = key_format.decoder() if key_format is not None else None
        columns, faults = columns_of(model)
        self.columns = tuple(columns)
        fields = [column.field for column in columns]
        if key is not None and key not in model.model_fields:
            faults.append(f"key {key!r} is not a field of the contract")
        elif key in fields and (fault := key_fault(model, columns[fields.index(key)])):
            faults.append(fault)
        try:
            self._validate = conversions.validator(model, strict=self.strict).validate_python
        except (InvalidColumn, SchemaError) as error:
            faults.append(str(error))
        if faults:
            raise DatasetError(f"{model.__name__}: {'; '.join(faults)}")
        self.key = key
        self.key_index = fields.index(key) if key is not None and keyed else None
        self.json_columns = [i for i, column in enumerate(columns) if column.sql_type == "jsonb"]
        is_json = self.decoder.json_text is not None
        self._stores = [(column.field, _storing(column, zone, is_json=is_json)) for column in columns]
        self._store_extra = strict_json.dumps if is_json else partial(store_document, "_extra", "jsonb", zone)
        self._key_validator: SchemaValidator | None = None

    def decode(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> Row | Rejection:
        """Turn a record into a row or a rejection; raises nothing because of a record or a validator.

        A tombstone (value None) gives a row with only its key. Raises RetriableError or PermanentError if the format's
        registry does not answer: then nothing is known about the record.
        """
        if value is None:
            return self._tombstone(key, headers)
        if len(value) > self.max_value_bytes:
            return Rejection(Reason.TOO_LARGE, f"value has {len(value)} bytes, expected at most {self.max_value_bytes}")
        try:
            document, prefix, _ = self.decoder.decode(value, headers)
        except Undecodable as error:
            return _undecodable(error)
        row = self._row(document)
        if isinstance(row, Rejection) or self.key_index is None:
            return row
        return self._other_key(key, prefix, row[self.key_index], headers) or row

    def _row(self, document: Any) -> Row | Rejection:
        try:
            if self.decoder.json_text is not None:
                document = strict_json.parse(document)
            elif not isinstance(document, Mapping):
                raise Malformed(Reason.WRONG_TYPE, f"expected a record, found {rejection.shown(document)}")
            model = self._validate(document)
            if not isinstance(model, self.model):
                raise TypeError(f"a validator returned {type(model).__name__}, expected {self.model.__name__}")
            values, extra = model.__dict__, model.__pydantic_extra__
            row = [store(values.get(field)) for field, store in self._stores]
            row.append(self._store_extra(extra) if extra else None)
        except Malformed as error:
            where = error.location
            path = storable(where) if isinstance(where, str) else rejection.json_path(where)
            return Rejection(error.reason, storable(error.detail), path)
        except ValidationError as error:
            return rejection.of_errors(error.errors(include_url=False))
        except Unstorable as error:
            return Rejection(error.reason, storable(error.detail), rejection.json_path((error.field,)))
        except (Exception, SystemExit) as error:
            # raised by the contract's own code: this record is rejected, the next one is decoded
            if isinstance(error, MemoryError):
                raise
            return rejection.of_exception(error)
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
            return _undecodable(error, "the record's key: ")
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
        if isinstance(document, Mapping):
            names = self.columns[self.key_index or 0].source_names
            # the one field of a text, or of a record that names it in another way, needs no name
            name = next((name for name in names if name in document), None)
            document = document[name] if name is not None else _only_value(document)
        return self._key_value(document)

    def _is_same_key(self, key: bytes | None, value: Any) -> bool:
        try:
            return key is not None and not self.strict and len(key) < 4_300 and self._key_value(key.decode()) == value
        except (ValueError, Unstorable, ArithmeticError):
            return False

    def _key_value(self, key: Any) -> Any:
        """The key field's value of a key that was decoded; raises ValueError or Unstorable where it is none."""
        column = self.columns[self.key_index or 0]
        if self._key_validator is None:
            self._key_validator = conversions.field_validators(self.model)[column.field]
        return _storing(column, self.zone)(self._key_validator.validate_python(key))

    def _tombstone(self, key: bytes | None, headers: Headers) -> Row | Rejection:
        row: Row = [None] * (len(self.columns) + 1)
        if self.key_index is None:
            return row
        column = self.columns[self.key_index]
        if key is None:
            return Rejection(Reason.MISSING_KEY, f"a tombstone without a key, expected {column.field} as its key")
        try:
            if self.key_decoder is not None:
                row[self.key_index] = self._decoded_key(self.key_decoder, key, headers)
            else:
                row[self.key_index] = self._key_value(key.decode())
            if row[self.key_index] is None:
                raise ValueError("expected a value")
        except Undecodable as error:
            return _undecodable(error, "the record's key: ")
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
        return Rejection(Reason.KEY_MISMATCH, storable(f"tombstone key {key[:60]!r} is no {column.field}: {message}"))

    def _key_mismatch(self, key: bytes | None, expected: bytes) -> Rejection:
        field = self.columns[self.key_index or 0].field
        found = "no key" if key is None else f"key {key[:60]!r}"
        return Rejection(
            Reason.KEY_MISMATCH, storable(f"found {found}, expected {field} {expected[:60]!r}"), f"$.{field}"
        )


def _undecodable(error: Undecodable, where: str = "") -> Rejection:
    return Rejection(Reason[error.fault.name], storable(where + error.detail))


def _only_value(document: Mapping[str, Any]) -> Any:
    if len(document) != 1:
        raise ValueError(f"found {len(document)} fields, expected the key's alone or one")
    return next(iter(document.values()))


_Storing = Callable[[Any], Any]  # from a field's value to its column's


def _storing(column: Column, zone: tzinfo, *, is_json: bool = True) -> _Storing:
    sql_type, _, is_array = column.sql_type.partition("[")
    kind_store = column_type(sql_type).store if is_json or sql_type != "jsonb" else store_document
    store: _Storing = partial(kind_store, column.field, sql_type, zone)
    if is_array:
        store = partial(_store_array, column.field, store)
    # a validator may leave None behind in any field; a column that records must fill does not take it
    return partial(_store_nullable if column.nullable or not column.required else _store_required, column.field, store)


def _store_nullable(_field: str, store: _Storing, value: Any) -> Any:
    return None if value is None else store(value)


def _store_required(field: str, store: _Storing, value: Any) -> Any:
    if value is None:
        raise Unstorable(field, None, "a value: a validator left none")
    return store(value)


def _store_array(field: str, store: _Storing, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise Unstorable(field, value, "a list")
    return [None if item is None else store(item) for item in value]
