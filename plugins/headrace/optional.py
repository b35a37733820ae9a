"""Packages that only an extra of Headrace installs: `pip install 'headrace[redis]'`."""

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.exceptions import ExtraMissing


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import within this what `extra` installs; raises ExtraMissing if a package of it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "headrace"):
            raise
        raise ExtraMissing(
            f"headrace[{extra}]: found no package {package}, expected that of the extra {extra}; install it with "
            f"`pip install 'headrace[{extra}]'`"
        ) from error
