"""The key and the time column of a draft."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.contracts import strict_json
from headrace.formats import Debezium, Json
from headrace.formats.base import Decoder, Format, Undecodable
from headrace.formats.wire import schema_id
from headrace.infer.documents import WIRE_FORMATS
from headrace.infer.draft import FieldDraft, KeyDraft
from headrace.infer.names import words_of
from headrace.record import Record

Document = Mapping[str, Any]
KEY_TYPES = ("Integer", "Text", "UUID")
KEY_LENGTH_MAX = 255
ID_WORDS = frozenset({"key", "number", "no", "code"})
ID_ENDINGS = ("id", "identifier")  # also of `userid`, `uuid`; that the values differ decides
MATCHING_MIN = 0.95  # of the records with a key, so many must have the field's value as their key
UNIQUE_MIN = 0.95  # of an id's values, so many differ: producers repeat a few
VERSIONS_MAX = 0.9  # a record's key that differs less often names an entity with many records
UNIQUE_FROM = 10  # fewer values differ by chance
TIME_TYPES = ("Timestamp", "EpochSeconds", "EpochMilliseconds", "Date")
_EVENT_WORDS = ("occurred", "event", "created", "pickup", "start", "time", "timestamp", "ts", "at")


def find_key(
    fields: Sequence[FieldDraft], pairs: Sequence[tuple[Record, Document]], *, has_tombstones: bool, format: Format
) -> KeyDraft | None:
    """The field that the records' keys equal, else one whose values differ; None if there is neither.

    An id that differs in each record wins over the records' key if this repeats: then the records are events of what
    the key names. Not if there are tombstones: these delete what the key names.
    """
    candidates = [field for field in fields if field.type in KEY_TYPES and _is_filled(field, pairs)]
    matching = _record_key(candidates, pairs, format)
    unique = _unique(candidates, pairs)
    if matching is None:
        return KeyDraft(unique, False, comment="it differs in each record of the sample") if unique else None
    field, key_format = matching
    if unique and unique is not field and not has_tombstones and _distinct(field, pairs) < VERSIONS_MAX:
        comment = f"it differs in each record of the sample; the record's key is {field.name}, which repeats"
        return KeyDraft(unique, False, comment=comment)
    return KeyDraft(field, True, key_format)


def _is_filled(field: FieldDraft, pairs: Sequence[tuple[Record, Document]]) -> bool:
    values = [document.get(field.source_name) for _, document in pairs]
    filled = [value for value in values if value not in (None, "")]
    return (
        bool(filled)
        and len(filled) >= MATCHING_MIN * len(values)
        and all(len(str(v)) <= KEY_LENGTH_MAX for v in filled)
    )


def _record_key(
    fields: Sequence[FieldDraft], pairs: Sequence[tuple[Record, Document]], format: Format
) -> tuple[FieldDraft, str | None] | None:
    """The field that the keys equal, and the expression of the keys' format if they are not the value's text."""
    keyed = [(record, document) for record, document in pairs if record.key is not None]
    if not keyed or len(keyed) < MATCHING_MIN * len(pairs):
        return None
    readers: list[tuple[str | None, Callable[[Record, FieldDraft], str | None]]] = [(None, lambda r, _: _text(r.key))]
    if isinstance(format, Debezium):  # the format says how its keys are read
        readers = [(None, lambda r, field: _decoded(format.key_format.decoder(), r, field))]
    elif all(schema_id(record.key or b"") is not None for record, _ in keyed):
        text = next((text for _, text in WIRE_FORMATS.values() if text[:-2] == type(format).__name__), None)
        readers = [(text, lambda r, field: _decoded(format.decoder(), r, field))] if text else []
    elif all((record.key or b"")[:1] in (b'"', b"{") for record, _ in keyed):
        readers = [("Json()", lambda r, field: _decoded(Json().decoder(), r, field))]
    for text, read in readers:
        for field in fields:
            count = sum(read(record, field) == str(document.get(field.source_name)) for record, document in keyed)
            if count >= MATCHING_MIN * len(keyed):
                return field, text
    return None


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode(errors="replace")


def _decoded(decoder: Decoder, record: Record, field: FieldDraft) -> str | None:
    """The value of the field in a key: by its name, or the only one there is."""
    try:
        document = decoder.decode(record.key or b"", record.headers).document
        if decoder.json_text is not None and isinstance(document, str):
            document = strict_json.parse_value(document)
    except (Undecodable, ValueError):
        return None
    if isinstance(document, Mapping):
        if field.source_name not in document and len(document) != 1:
            return None
        document = document.get(field.source_name, next(iter(document.values()), None))
    return str(document)


def _distinct(field: FieldDraft, pairs: Sequence[tuple[Record, Document]]) -> float:
    values = [str(document.get(field.source_name)) for _, document in pairs]
    return len(set(values)) / len(values)


def _unique(fields: Sequence[FieldDraft], pairs: Sequence[tuple[Record, Document]]) -> FieldDraft | None:
    """The first field whose values differ and whose type or name is that of an id."""
    if len(pairs) < UNIQUE_FROM:
        return None
    for field in fields:
        words = words_of(field.source_name)
        is_id = field.type == "UUID" or (words and (words[-1] in ID_WORDS or words[-1].endswith(ID_ENDINGS)))
        if is_id and _distinct(field, pairs) >= UNIQUE_MIN:
            return field
    return None


def find_time_column(fields: Sequence[FieldDraft]) -> FieldDraft | None:
    """The time of the event: of the times that every record has, else of all, the one whose name says so first."""
    times = [field for field in fields if field.type in TIME_TYPES]
    candidates = [field for field in times if not field.is_optional] or times
    if not candidates:
        return None

    def rank(field: FieldDraft) -> int:
        words = words_of(field.source_name)
        found = (i for i, word in enumerate(_EVENT_WORDS) if any(part.startswith(word) for part in words))
        return min(found, default=len(_EVENT_WORDS))

    return min(candidates, key=rank)
