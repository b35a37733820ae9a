"""Arrays of objects whose elements are rows of a table of their own: `Child(name="items", explode="$.items", ...)`.

The elements are decoded with their record: each by the child's contract, and the record is staged with all of them or,
if one breaks its contract, is a dead letter as a whole.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import BaseModel

from headrace.contracts.columns import Column
from headrace.contracts.masks import NOT_VALID
from headrace.contracts.places import Header, Key, Names, Path, at, is_absent, outer_names, replaced, without
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, json_path, shown, storable
from headrace.exceptions import DatasetError

Row = list[Any]
Elements = Sequence[Sequence[Row]]  # of one record: of each child the rows of its elements, in their order


CHILD_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An array of objects in a dataset's records, whose elements are rows of the table staging.<dataset>__<name>.

    contract: of one element. explode: the path of the array, "$.items". required: whether a record must have it.
    Defaults to False: without the array, or with null, a record has no elements.

    Raises DatasetError for another name or path.
    """

    name: str
    contract: type[BaseModel]
    explode: str
    required: bool = False

    def __post_init__(self) -> None:
        if not CHILD_NAME.fullmatch(self.name) or "__" in self.name:
            raise DatasetError(
                f"child {self.name!r}: expected a name that matches {CHILD_NAME.pattern}, without two underscores in a "
                "row"
            )
        _ = self.path

    @property
    def path(self) -> Path:
        """The path of the array."""
        return Path(self.explode)


class ElementMasks(Protocol):
    """The masks of an element's fields, as contracts.masked_records has them."""

    names: list[str]
    can_be_replayed: bool

    def mask_members(self, document: dict[str, Any]) -> None:
        """Put masks in the places of a document's values."""

    def texts(self, document: Mapping[str, Any]) -> Iterable[str]:
        """A document's masked values, as messages may quote them."""


class ElementContract(Protocol):
    """What children need of the contract of their elements."""

    columns: Sequence[Column]
    json_columns: Sequence[int]

    @property
    def masks(self) -> ElementMasks | None:
        """Masks the elements in dead letters; None if no field is masked."""

    def row_of(self, document: Mapping[str, Any]) -> Row | Rejection:
        """Turn an element into a row or a rejection."""


class ParentRow(list[Any]):
    """The row of a record, with those of its elements."""

    __slots__ = ("elements",)
    elements: Elements

    def __init__(self, row: Iterable[Any], elements: Elements) -> None:
        super().__init__(row)
        self.elements = elements


@dataclass(frozen=True, slots=True)
class CompiledChild:
    """A child whose contract is compiled. required: whether a record must have the array."""

    name: str
    path: Path
    contract: ElementContract
    required: bool

    def rows(self, document: Mapping[str, Any]) -> Sequence[Row] | Rejection:
        """The rows of a document's elements; the rejection of the record if one is none, or breaks the contract."""
        array = at(document, self.path.names)
        if is_absent(array) or array is None:
            missing = Rejection(Reason.MISSING_FIELD, f"{self._title}: missing", json_path(self.path.names))
            return missing if self.required else ()
        if not isinstance(array, list):
            return self._wrong(array, "an array", json_path(self.path.names))
        rows: list[Row] = []
        for index, element in enumerate(array):
            row = (
                self.contract.row_of(element)
                if isinstance(element, Mapping)
                else self._wrong(element, "an object", "$")
            )
            if isinstance(row, Rejection):
                return self._inside(index, row)
            rows.append(row)
        return rows

    def mask(self, document: dict[str, Any]) -> None:
        """Put masks into a document's elements; what is no element of an array is not kept."""
        masks = self.contract.masks
        if masks is None:
            return

        def masked(array: Any) -> Any:
            if not isinstance(array, list):
                return None if array is None else NOT_VALID
            for index, element in enumerate(array):
                if isinstance(element, dict):
                    masks.mask_members(element)
                else:
                    array[index] = NOT_VALID
            return array

        replaced(document, self.path.names, masked)

    def masked_texts(self, document: Mapping[str, Any]) -> Iterator[str]:
        """The values in a document's elements that are masked, as messages may quote them."""
        array = at(document, self.path.names)
        if self.contract.masks is not None and isinstance(array, list):
            for element in array:
                if isinstance(element, Mapping):
                    yield from self.contract.masks.texts(element)

    @property
    def _title(self) -> str:
        return ".".join(self.path.names)

    def _wrong(self, value: Any, expected: str, path: str) -> Rejection:
        found = type(value).__name__ if self.contract.masks is not None else shown(value)
        detail = f"{self._title}: found {found}, expected {expected}"
        return Rejection(Reason.WRONG_TYPE, storable(detail), path)

    def _inside(self, index: int, found: Rejection) -> Rejection:
        """A rejection of one element as one of its record."""
        array = json_path(self.path.names)
        inner = found.json_path.removeprefix("$")
        return replace(
            found,
            detail=storable(f"element {index} of {self._title}: {found.detail}"),
            json_path=storable(f"{array}[{index}]{inner}"),
        )


class Children:
    """The children of a contract, whose columns are those of the records."""

    def __init__(self, each: Sequence[CompiledChild], columns: Sequence[Column]) -> None:
        outer = outer_names(columns)
        self.each = each
        # what is around the array, or the array itself, is kept where the contract has a field of it
        self._taken = [child.path.names for child in each if not _is_held(child.path.names, outer)]

    @property
    def are_masked(self) -> bool:
        """Whether a field of an element is masked."""
        return any(child.contract.masks is not None for child in self.each)

    def without(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A document without the arrays."""
        left = dict(document)
        for names in self._taken:
            left = without(left, names)
        return left

    def rows(self, document: Mapping[str, Any]) -> Elements | Rejection:
        """The rows of all elements of a document, or the rejection of its record."""
        found: list[Sequence[Row]] = []
        for child in self.each:
            rows = child.rows(document)
            if isinstance(rows, Rejection):
                return rows
            found.append(rows)
        return found


def compile_children(
    children: Sequence[Child], compiled: Callable[[type[BaseModel]], ElementContract], columns: Sequence[Column]
) -> Children | None:
    """The children of a contract with these columns; None if there are none. Raises DatasetError with their faults."""
    each = [CompiledChild(child.name, child.path, compiled(child.contract), child.required) for child in children]
    if faults := list(_faults(each, outer_names(columns))):
        raise DatasetError("; ".join(faults))
    return Children(each, columns) if each else None


def _faults(each: Sequence[CompiledChild], outer: set[Names]) -> Iterator[str]:
    for index, child in enumerate(each):
        for other in each[:index]:
            if child.name == other.name:
                yield f"two children are named {child.name!r}"
            shorter, longer = sorted((child.path.names, other.path.names), key=len)
            if longer[: len(shorter)] == shorter:
                yield f"children {other.name!r} and {child.name!r} are inside one another, expected two arrays"
        for column in child.contract.columns:
            if isinstance(column.place, Header | Key):
                kind = type(column.place).__name__.lower()
                yield f"field {column.field!r} of child {child.name!r} is in a {kind}, expected a field of the element"
        if child.contract.masks is not None and _is_held(child.path.names, outer):
            yield f"child {child.name!r} has masks, and a field of the record holds its array as it came"


def _is_held(names: Names, outer: set[Names]) -> bool:
    return any(names[:length] in outer for length in range(1, len(names) + 1))
