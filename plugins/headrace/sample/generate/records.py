"""A record as its producer sends it, with the reason for which a drain must reject it, if any.

The modules of this package use the standard library only: their expectations are independent of the contracts.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """Key and value; reason: why a drain must reject it, None for a valid one."""

    key: bytes | None
    value: bytes
    reason: str | None = None

    @property
    def line(self) -> bytes:
        """`key|value`, or the value alone, and a line feed."""
        return self.value + b"\n" if self.key is None else self.key + b"|" + self.value + b"\n"


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect of a record: the reason and the JSON path that its dead letter must have."""

    reason: str
    json_path: str
    make_invalid: Callable[[Document], bytes]


def dumped(document: Document) -> bytes:
    """A document as JSON without blanks."""
    return json.dumps(document, separators=(",", ":")).encode()


def broken(rng: random.Random, key: bytes | None, document: Document, defects: Sequence[Defect]) -> SampleRecord:
    """The document with one of the defects."""
    defect = rng.choice(defects)
    return SampleRecord(key, defect.make_invalid(document), defect.reason)


def without(field: str) -> Defect:
    """A document that lacks a required field."""
    return Defect("missing_field", f"$.{field}", lambda document: dumped(omit(document, field)))


def omit(document: Document, *fields: str) -> Document:
    """The document without these fields."""
    return {name: value for name, value in document.items() if name not in fields}


def having(reason: str, field: str, value: object) -> Defect:
    """A document that has a value that its field cannot have."""
    return Defect(reason, f"$.{field}", lambda document: dumped({**document, field: value}))


def defects_of(field: str) -> tuple[Defect, ...]:
    """What goes wrong with any JSON document; `field` is one that is required and may hold no null."""
    return (
        without(field),
        having("wrong_type", field, None),
        having("wrong_type", field, [1]),
        having("wrong_type", field, True),
        Defect("invalid_json", "$", lambda document: dumped(document)[:-1]),
        Defect("invalid_utf8", "$", lambda document: dumped(document).replace(b"{", b'{"note":"\xff",', 1)),
        Defect("invalid_json", "$", lambda document: dumped(document).replace(b"{", b'{"note":NaN,', 1)),
        Defect("nul_character", "$.note", lambda document: dumped(document).replace(b"{", b'{"note":"\\u0000",', 1)),
        Defect(
            "duplicate_key",
            f"$..{field}",
            lambda document: dumped(document).replace(b"{", b'{"' + field.encode() + b'":1,', 1),
        ),
    )
