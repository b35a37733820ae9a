"""The draft of a declaration: fields, key, time column, source and format, before any text is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.sources.declarations import SourceDeclaration


@dataclass(slots=True)
class FieldDraft:
    """A field of the contract.

    source_name: what records call it. type: the expression of its type, such as `Integer`. name: in Python, its
    column's in lower case. is_optional: a record may lack it, or have null. comment: what the author should look at.
    """

    source_name: str
    type: str
    is_optional: bool = False
    comment: str = ""
    name: str = ""

    @property
    def column(self) -> str:
        """The column of the staging table."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """The key: a field, whether the record's key equals it, and the expression of the key's format if it has one."""

    field: FieldDraft
    is_record_key: bool
    format: str | None = None
    comment: str = ""


@dataclass(slots=True)
class Draft:
    """A dataset's draft. source_text and format_text: the expressions in the declaration. origin: what it is from."""

    name: str
    source: SourceDeclaration
    source_text: str
    origin: str
    fields: Sequence[FieldDraft] = ()
    format_text: str | None = None
    key: KeyDraft | None = None
    time_column: FieldDraft | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def system(self) -> str:
        """The system that records come from, as names of stg_ models have it."""
        return {"topic": "kafka", "stream": "redis", "file": "files"}[self.source.kind]
