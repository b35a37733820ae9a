"""Ids of parametrized tests that are the same in every process."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def stable_id(value: object) -> str:
    """The value as text, without the addresses of its functions: pytest-xdist compares the ids of its processes."""
    return _ADDRESS.sub("", str(value))
