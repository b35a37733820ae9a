"""Plain text: a value is one text, and the document has one field."""

from dataclasses import dataclass
from typing import ClassVar

from headrace.exceptions import DatasetError
from headrace.formats.base import Decoded, Plain, PlainDecoder, text_of
from headrace.record import Headers


@dataclass(frozen=True, slots=True)
class PlainText(Plain):
    """A record's value is text in UTF-8; as the format of keys, the key is.

    field: the name of the document's one field. Defaults to "value".
    """

    name: ClassVar[str] = "text"

    field: str = "value"

    def __post_init__(self) -> None:
        if not self.field:
            raise DatasetError("PlainText: field is '', expected the name of the document's one field")

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return f"text in UTF-8, the document's field {self.field}"

    def decoder(self) -> "PlainTextDecoder":
        """Reads values as UTF-8."""
        return PlainTextDecoder(self.field)


class PlainTextDecoder(PlainDecoder):
    """Makes a document of a text."""

    __slots__ = ("_field",)

    def __init__(self, field: str) -> None:
        self._field = field

    def decode(self, value: bytes, _headers: Headers) -> Decoded:
        """The document, whose one field is the text."""
        return Decoded({self._field: text_of(value)})
