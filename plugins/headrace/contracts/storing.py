"""From a field's validated value to its column's: checked, masked, and an array's item by item."""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import partial
from typing import Any

from headrace.contracts.column_types import Unstorable, column_type, store_document
from headrace.contracts.columns import Column
from headrace.contracts.masks import How, Mask, MaskedText, mask_of

Storing = Callable[[Any], Any]  # from a field's value to its column's


def storing(column: Column, zone: tzinfo, masking_key: bytes | None, *, is_json: bool) -> Storing:
    """What a column gets of a field's value, which may be masked; raises Unstorable where it holds none."""
    store = storing_unmasked(column, zone, is_json=is_json)
    if column.masked is None:
        return store
    return partial(_store_masked, store, mask_of(column.field, column.masked, masking_key), column.masked.how)


def _store_masked(store: Storing, mask: Mask, how: How, value: Any) -> Any:
    if isinstance(value, MaskedText):
        return None if how == "drop" else str(value)
    value = store(value)
    return None if value is None else mask(value)


def storing_unmasked(column: Column, zone: tzinfo, *, is_json: bool = True) -> Storing:
    """What it would get, were it not masked."""
    sql_type, _, is_array = column.value_type.partition("[")
    kind_store = column_type(sql_type).store if is_json or sql_type != "jsonb" else store_document
    store: Storing = partial(kind_store, column.title, sql_type, zone)
    if is_array:
        store = partial(_store_array, column.title, store)
    # a validator may leave None behind in any field; a column that records must fill does not take it
    is_null = column.nullable or not column.required
    store = partial(_store_nullable if is_null else _store_required, column.title, store)
    return partial(_store_inner, column.inner, store) if column.inner else store


def _store_inner(names: Sequence[str], store: Storing, value: Any) -> Any:
    """Of a flattened model's value what a field inside holds; null where there is no object."""
    for name in names:
        value = None if value is None else getattr(value, name)
    return store(value)


def _store_nullable(_field: str, store: Storing, value: Any) -> Any:
    return None if value is None else store(value)


def _store_required(field: str, store: Storing, value: Any) -> Any:
    if value is None:
        raise Unstorable(field, None, "a value: a validator left none")
    return store(value)


def _store_array(field: str, store: Storing, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise Unstorable(field, value, "a list")
    return [None if item is None else store(item) for item in value]
