"""The rejections of records that cannot be decoded, or lack a value that their source did not send."""

from collections.abc import Sequence

from headrace.contracts.children import Children
from headrace.contracts.columns import Column
from headrace.contracts.places import Names, Path
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, json_path, storable
from headrace.contracts.strict_json import Malformed
from headrace.formats.base import Change, Undecodable


def malformed(error: Malformed) -> Rejection:
    """The rejection of a value that is no document, or holds what no column does."""
    where = error.location
    path = storable(where) if isinstance(where, str) else json_path(where)
    return Rejection(error.reason, storable(error.detail), path)


def undecodable(error: Undecodable, where: str = "") -> Rejection:
    """The rejection of bytes that their format does not decode."""
    return Rejection(Reason[error.fault.name], storable(where + error.detail))


def lacking(change: Change, columns: Sequence[Column], children: Children | None) -> Rejection | None:
    """The rejection of an event without the value of a field or an array; None if the contract does not name it."""
    named = [(column.field, _names(column)) for column in columns]
    named += [(child.path.names[0], child.path.names[:1]) for child in (children.each if children is not None else ())]
    for field, names in named:
        if not change.unavailable.isdisjoint(names):
            detail = (
                "the event has no value, which did not change; expected one: give the table REPLICA IDENTITY FULL "
                "(Postgres), or the connector a ReselectColumnsPostProcessor, and load the table again by a snapshot"
            )
            return Rejection(Reason.UNAVAILABLE_VALUE, detail, json_path((field,)))
    return None


def _names(column: Column) -> Names:
    return column.place.names[:1] if isinstance(column.place, Path) else column.document_names or column.source_names
