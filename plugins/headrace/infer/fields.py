"""The fields of documents: names, types, and which a record may lack."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.infer.draft import FieldDraft
from headrace.infer.names import name_fields
from headrace.infer.values import OUTLIERS_FROM, type_of

# fields that are rarer than the 200 most frequent, or than one record in a hundred of a large sample, stay in _extra
FIELDS_MAX = 200
RARE_FROM, RARE_SHARE = 1_000, 0.01
NAMED_MAX = 5
CORE_SHARE = 0.9  # a field that so many documents have is one of the core
CORE_MISSING_MAX = 0.5  # a document that lacks so much of the core is of another kind
OTHERS_MAX = 0.1  # and such documents are left out if they are so few

Document = Mapping[str, Any]


def usual(documents: Sequence[Document]) -> list[Document]:
    """The documents without a few that have hardly a field in common with the others: these break the contract."""
    counts = Counter(name for document in documents for name in document)
    core = {name for name, count in counts.items() if count >= CORE_SHARE * len(documents)}
    kept = [
        document for document in documents if len(core - document.keys()) <= CORE_MISSING_MAX * len(core) and document
    ]
    is_few = len(documents) >= OUTLIERS_FROM and len(documents) - len(kept) <= OTHERS_MAX * len(documents)
    return kept if is_few else list(documents)


def fields_of(documents: Sequence[Document], *, all_text: bool = False) -> tuple[list[FieldDraft], list[str]]:
    """The fields in the order in which documents have them, named; and notes on those that are left out."""
    counts = Counter(name for document in documents for name in document)
    notes = []
    least = RARE_SHARE * len(documents) if len(documents) >= RARE_FROM else 0
    kept = {name for name, count in counts.most_common(FIELDS_MAX) if name and count >= least}
    rare = sorted(counts.keys() - kept)
    if rare:
        more = ", ..." if len(rare) > NAMED_MAX else ""
        notes.append(f"rare fields stay in _extra: {', '.join(rare[:NAMED_MAX])}{more}")
    fields = []
    for name in counts:
        if name in kept:
            values = [document[name] for document in documents if document.get(name) is not None]
            found = type_of(name, values, all_text=all_text)
            is_optional = len(values) < len(documents) or found.empty_is_null
            fields.append(FieldDraft(name, found.expression, is_optional, found.comment))
    name_fields(fields)
    return fields, notes
