"""Where a field's value is in a record: at a path of the document, in a header, in the key.

A declaration writes `customer: Annotated[Integer, Path("$.customer.id")]`. The values are moved to names of their own,
which no document can have, before the model validates it; so conversions, defaults and validators apply to them as to
any other field. They work on documents, whatever their format.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import ErrorDetails

from headrace.contracts import strict_json
from headrace.contracts.reasons import Reason
from headrace.contracts.strict_json import Malformed
from headrace.exceptions import DatasetError
from headrace.formats.base import Decoder, text_of
from headrace.record import Headers

_STEP = re.compile(r"\.(\w+)|\['([^']+)'\]")
_ABSENT = object()

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """The value is inside the document: `Path("$.customer.id")`, `Path("$.customer['e-mail']")`.

    It is taken out of there: what is left of the outer object is kept in `_extra`, or in the outer field where the
    contract has one, which keeps the value, too. Absent and null outer objects have no value.

    Raises DatasetError for another path; items of arrays cannot be named.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.names:
            raise DatasetError("Path('$'): expected a path inside the document, as in $.customer.id")

    @property
    def names(self) -> Names:
        """The names from the outside in."""
        return _names(self.path, "Path")

    @property
    def alias(self) -> str:
        """The name under which the model gets the value."""
        return f"\0{self.path}"


@dataclass(frozen=True, slots=True)
class Header:
    """The value is a header's, as text; the last one counts where a record has several of the name."""

    name: str

    @property
    def alias(self) -> str:
        """The name under which the model gets the value."""
        return f"\0headers.{self.name}"


@dataclass(frozen=True, slots=True)
class Key:
    """The value is the record's key, or a part of one that is JSON or has a `key_format`: `Key("$.tenant")`.

    Raises DatasetError for another path.
    """

    path: str = "$"

    def __post_init__(self) -> None:
        _names(self.path, "Key")

    @property
    def names(self) -> Names:
        """The names from the outside in; none for the whole key."""
        return _names(self.path, "Key")

    @property
    def alias(self) -> str:
        """The name under which the model gets the value."""
        return f"\0key{self.path[1:]}"


Place = Path | Header | Key


class PlacedColumn(Protocol):
    """What places need of a column."""

    @property
    def field(self) -> str:
        """The field's name."""

    @property
    def document_names(self) -> Names:
        """Its names in documents; none if it has a place."""

    @property
    def value_type(self) -> str:
        """The Postgres type of its values."""

    @property
    def place(self) -> Place | None:
        """Where it is."""

    @property
    def is_masked(self) -> bool:
        """Whether it is stored masked."""


class Places:
    """The places of a contract's fields."""

    def __init__(self, columns: Sequence[PlacedColumn]) -> None:
        self._paths = [
            (column.place.alias, column.place.names, _is_inside(column, columns))
            for column in columns
            if isinstance(column.place, Path)
        ]
        self._headers = [
            (column.place.alias, column.place.name, column.value_type == "bytea")
            for column in columns
            if isinstance(column.place, Header)
        ]
        self._keys = [(column.place.alias, column.place.names) for column in columns if isinstance(column.place, Key)]

    @property
    def read_key_documents(self) -> bool:
        """Whether a field is a part of the record's key."""
        return any(names for _, names in self._keys)

    @property
    def read_keys(self) -> bool:
        """Whether a field is in the record's key."""
        return bool(self._keys)

    def placed(self, document: Mapping[str, Any], key: Any, headers: Headers) -> dict[str, Any]:
        """A document with the values under the fields' own names; raises Malformed for a header that is no text.

        key: the record's key as `key_document` gives it.
        """
        found = [(alias, at(document, names)) for alias, names, _ in self._paths]
        found += [(alias, at(key, names)) for alias, names in self._keys]
        found += [(alias, _header(headers, name, is_bytes=is_bytes)) for alias, name, is_bytes in self._headers]
        left = dict(document)
        for _, names, is_inside in self._paths:
            if not is_inside:
                left = without(left, names)
        return left | {alias: value for alias, value in found if value is not _ABSENT}


def faults(columns: Sequence[PlacedColumn]) -> Iterable[str]:
    """What is wrong with the places of a contract's fields."""
    for column in columns:
        if column.is_masked and isinstance(column.place, Header | Key):
            kind = "_headers" if isinstance(column.place, Header) else "_key"
            yield f"field {column.field!r} is masked, and {kind} holds its value as it came; leave one of the two out"
        if column.is_masked and _is_inside(column, columns):
            yield f"field {column.field!r} is masked, and is inside another field, which holds its value as it came"


def key_document(key: bytes | None, decoder: Decoder | None, headers: Headers) -> Any:
    """A record's key: what its format makes of it, or its text; an absent value where it has none.

    Raises Undecodable or Malformed.
    """
    if key is None:
        return _ABSENT
    if decoder is None:
        return text_of(key)
    document = decoder.decode(key, headers).document
    if isinstance(document, str) and decoder.json_text is not None:
        return strict_json.parse_value(document)
    return document


def at(document: Any, names: Names) -> Any:
    """The value at a path; an object of its own where there is none: see `is_absent`."""
    for name in names:
        if not isinstance(document, Mapping) or name not in document:
            return _ABSENT
        document = document[name]
    return document


def is_absent(value: Any) -> bool:
    """Whether `at` found nothing."""
    return value is _ABSENT


def located(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Pydantic's errors with the places of values instead of their names."""
    return [_located(error) if _is_alias(error["loc"][:1]) else error for error in errors]


def replaced(document: dict[str, Any], names: Names, replace: Callable[[Any], Any]) -> None:
    """Put another value in the place of one, if there is one."""
    value = at(document, names)
    if value is _ABSENT:
        return
    outer: Any = document
    for name in names[:-1]:
        outer = outer[name]
    outer[names[-1]] = replace(value)


def words_of(place: Place) -> Names:
    """A place in parts, as the JSON path of a rejection has them."""
    return _words(place.alias[1:])


def _located(error: ErrorDetails) -> ErrorDetails:
    alias, *rest = error["loc"]
    located = error.copy()
    located["loc"] = (*_words(str(alias)[1:]), *rest)
    return located


def _words(alias: str) -> Names:
    """An alias in parts: of $.customer.id customer and id, of headers.trace both."""
    if alias.startswith("headers."):
        return "headers", alias.removeprefix("headers.")
    return _parts(alias) if alias.startswith("$") else ("key", *_parts(alias))


def _is_alias(loc: Sequence[Any]) -> bool:
    return bool(loc) and isinstance(loc[0], str) and loc[0].startswith("\0")


def _is_inside(column: PlacedColumn, columns: Sequence[PlacedColumn]) -> bool:
    """Whether another field holds what is around the value."""
    if not isinstance(column.place, Path):
        return False
    names, outer = column.place.names, outer_names(columns)
    return any(names[:length] in outer for length in range(1, len(names)))


def outer_names(columns: Sequence[PlacedColumn]) -> set[Names]:
    """What documents hold in fields of a contract, by the names from the outside in."""
    found: set[Names] = {(name,) for column in columns if column.place is None for name in column.document_names}
    return found | {column.place.names for column in columns if isinstance(column.place, Path)}


def without(document: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """A copy of a document without a value, and without outer objects that it leaves empty."""
    if at(document, names) is _ABSENT:
        return dict(document)
    copy = dict(document)
    inner = without(copy[names[0]], names[1:]) if len(names) > 1 else {}
    if inner:
        copy[names[0]] = inner
    else:
        del copy[names[0]]
    return copy


def _header(headers: Headers, name: str, *, is_bytes: bool) -> Any:
    for found, value in reversed(headers):
        if found != name:
            continue
        if value is None or is_bytes:
            return value
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise Malformed(
                Reason.INVALID_UTF8, f"header {name!r}: byte {error.start} is no UTF-8", f"headers.{name}"
            ) from error
        if "\0" in text:
            raise Malformed(Reason.NUL_CHARACTER, f"header {name!r} holds U+0000", f"headers.{name}")
        return text
    return _ABSENT


def _names(path: str, kind: str) -> Names:
    if not re.fullmatch(rf"\$(?:{_STEP.pattern})*", path):
        raise DatasetError(
            f"{kind}({path!r}): expected names of objects, as in $.customer.id or $['first name'].x; declare an array "
            "as a list"
        )
    return _parts(path)


def _parts(path: str) -> Names:
    return tuple(first or second for first, second in _STEP.findall(path))
