"""Fixtures of the fault suite."""

from collections.abc import Iterator

import pytest

from tests.faults.servers import Servers
from tests.faults.suite import PrintLine


@pytest.fixture
def print_line(capsys: pytest.CaptureFixture[str]) -> PrintLine:
    """Print at once, also while pytest captures output."""

    def printed(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    return printed


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Postgres and a broker that no trial kills."""
    servers = Servers()
    try:
        servers.start()
        yield servers
    finally:
        servers.close()
