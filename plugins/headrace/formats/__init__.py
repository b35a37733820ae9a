"""Formats: how a record's bytes hold its document. May import the root only; contracts and sources import it.

A declaration names one: `Dataset(..., format=KeyedJson())`. Defaults to Json().
"""

from dataclasses import dataclass

from headrace.exceptions import DatasetError


@dataclass(frozen=True, slots=True)
class Json:
    """A record's value is one JSON object."""

    @property
    def separator(self) -> str | None:
        """What stands between a key and the document inside a value: nothing does."""
        return None


@dataclass(frozen=True, slots=True)
class KeyedJson:
    """A record's value is a JSON object, or `key|{...}`: what `kafka-console-producer` sends without parse.key.

    A value that begins with a brace is the document. Of any other value the text before the first separator is the
    key, and the rest the document. Where a record has a key of its own too, both must name the document's.

    separator: one character that no JSON object begins with. Defaults to "|".
    """

    separator: str = "|"

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator in "{ \t\r\n\0" or not self.separator.isprintable():
            raise DatasetError(
                f"KeyedJson: separator is {self.separator!r}, expected one printable character that is neither a blank "
                "nor a brace"
            )


Format = Json | KeyedJson
JSON = Json()
