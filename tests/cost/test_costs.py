"""The measure itself: it finds what it is for."""

import re

import pytest

from tests.cost.costs import assert_linear
from tests.cost.payloads import TEXTS


def test_a_quadratic_cost_is_found() -> None:
    """What once searched for a name behind an escape, in a payload full of escapes: 3.9 s for 40 kB."""
    search = re.compile(r'\\u[^"\\]*(?:\\.[^"\\]*)*"\s*:').search
    with pytest.raises(AssertionError, match=r"ms for \(10000, 100000\) bytes, expected at most"):
        assert_linear(lambda size: TEXTS["escapes"](size // 10), search)


def test_a_cost_that_is_high_for_every_byte_is_found() -> None:
    with pytest.raises(AssertionError, match=r"ms for \(10000,\) bytes, expected at most"):
        assert_linear(lambda size: " " * size, lambda text: [len(text.strip()) for _ in range(len(text))])
