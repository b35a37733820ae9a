"""JSON: a value is the document's text, or a key and the document's text."""

from dataclasses import dataclass
from typing import ClassVar

from headrace.exceptions import DatasetError
from headrace.formats.base import Decoded, JsonText, Plain, PlainDecoder, text_of
from headrace.record import Headers


@dataclass(frozen=True, slots=True)
class Json(Plain):
    """A record's value is one JSON object."""

    name: ClassVar[str] = "json"

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return "a JSON object"

    def decoder(self) -> "JsonDecoder":
        """Reads values as UTF-8."""
        return JsonDecoder(JsonText())


@dataclass(frozen=True, slots=True)
class KeyedJson(Plain):
    """A record's value is a JSON object, or `key|{...}`: what `kafka-console-producer` sends without parse.key.

    A value that begins with a brace is the document. Of any other value the text before the first separator is the
    key, and the rest the document. Where a record has a key of its own too, both must name the document's.

    separator: one character that no JSON object begins with. Defaults to "|".
    """

    name: ClassVar[str] = "keyed_json"

    separator: str = "|"

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator in "{ \t\r\n\0" or not self.separator.isprintable():
            raise DatasetError(
                f"KeyedJson: separator is {self.separator!r}, expected one printable character that is neither a blank "
                "nor a brace"
            )

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return f"a JSON object, or a value key{self.separator}{{JSON}} of a record without a key"

    def decoder(self) -> "JsonDecoder":
        """Takes a key off the front."""
        return JsonDecoder(JsonText(self.separator))


class JsonDecoder(PlainDecoder):
    """Finds the document's text; the contract parses it."""

    __slots__ = ("_separator", "json_text")

    def __init__(self, json_text: JsonText) -> None:
        self.json_text = json_text
        self._separator = json_text.separator

    def decode(self, value: bytes, _headers: Headers) -> Decoded:
        """The document's text, and the key before it."""
        text = text_of(value)
        if self._separator is not None and not text.lstrip(" \t\r\n").startswith("{"):
            prefix, found, document = text.partition(self._separator)
            if found:
                return Decoded(document, prefix.encode())
        return Decoded(text)
