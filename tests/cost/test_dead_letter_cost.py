"""What is said, shown and compared of a record costs as much as its bytes."""

import orjson
import pytest

from headrace.contracts import rejection
from headrace.contracts.copy_cells import escaped
from headrace.escaping import visible
from headrace.monitor import dead_letter_text
from headrace.postgres import dead_letters
from headrace.sources.bounds import HEADERS_MAX
from headrace.times import TimeTexts
from headrace.verify import canonical
from tests.cost.costs import assert_linear
from tests.cost.payloads import DOCUMENTS, runs

# dead letters: what is said of a record, and how it is shown


@pytest.mark.parametrize("unit", [" a", "\0", "\ud800"])
def test_cost_of_a_dead_letters_text_is_linear(unit: str) -> None:
    for run in (
        rejection.storable,
        rejection.shown,
        visible,
        escaped,
        lambda text: rejection.json_path(("a", text, 0)),
        lambda text: rejection.of_exception(ValueError(text)),
        lambda text: list(dead_letter_text._body("value", text.encode("utf-8", "surrogatepass"))),
        lambda text: dead_letter_text._in_a_line(text.encode("utf-8", "surrogatepass")),
        lambda text: dead_letters.headers_json([(text, text.encode("utf-8", "surrogatepass"))]),
        lambda text: canonical.digest([text, [text]]),
    ):
        assert_linear(runs(unit), run)


@pytest.mark.parametrize("header", [("", b""), (b"\xff", b"\xff")])
def test_cost_of_many_headers_is_linear(header: tuple[str | bytes, bytes | None]) -> None:
    """As many as are kept. In a record each takes the bytes of its name and value, and one for the length of either."""
    header_bytes = 2 + sum(map(len, filter(None, header)))
    assert_linear(lambda size: [header] * min(size // header_bytes, HEADERS_MAX), dead_letters.headers_json)
    stored = orjson.loads(dead_letters.headers_json([header]) or b"")
    assert_linear(lambda size: stored * (size // 30), dead_letters.headers_of)


@pytest.mark.parametrize("name", ["names", "one name", "nested", "longest numbers", "exponents", "long fractions"])
def test_cost_of_a_comparison_with_the_source_is_linear(name: str) -> None:
    assert_linear(DOCUMENTS[name], lambda text: canonical.digest([canonical.json_value(text)]))


def test_cost_of_record_times_that_collide_is_linear() -> None:
    """A producer chooses them, and Python's dictionaries place whole numbers by their lowest bits at first."""

    def remember(timestamps: list[int]) -> None:
        texts = TimeTexts()
        for timestamp_ms in timestamps:
            texts[timestamp_ms]

    assert_linear(lambda size: [i << 43 for i in range(size // 8)], remember)
