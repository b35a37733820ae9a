"""Ways in which a JSON record goes wrong, whatever it is about."""

import json
import random
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]


def line(document: Document) -> bytes:
    """A document as one line of JSON."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def broken(rng: random.Random, document: Document, *, number: str) -> bytes:
    """The document as a line that breaks its contract; `number` names a numeric field, or the identifier."""
    return rng.choice(DEFECTS)(document, number)


def _without(document: Document, field: str) -> bytes:
    return line({name: value for name, value in document.items() if name != field})


# each takes a document and the name of a field that every contract requires
DEFECTS: tuple[Callable[[Document, str], bytes], ...] = (
    _without,
    lambda document, field: line({**document, field: None}),
    lambda document, field: line({**document, field: [1]}),
    lambda document, field: line({**document, field: True}),
    lambda document, _: line(document)[:-2] + b"\n",
    lambda document, _: line(document).replace(b"{", b'{"note":"\xff",', 1),
    lambda document, _: line(document).replace(b"{", b'{"note":NaN,', 1),
    lambda document, _: line(document).replace(b"{", b'{"note":"\\u0000",', 1),
    lambda document, field: line(document).replace(b"{", b'{"' + field.encode() + b'":1,', 1),
)
