"""What every suite shares: an environment without our settings, folders that other users can reach."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.local import ports

pytest.register_assert_rewrite("tests.support")  # before anything of it is imported


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_caller() -> Iterator[None]:
    """Tests neither read nor touch what the caller's shell points at."""
    saved = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("HEADRACE_", "AIRFLOW", "PG", "JAVA_"))
    }
    # brokers live for minutes here: what the second compiler and a concurrent collector would take is never paid back
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    yield
    os.environ.update(saved)


@pytest.fixture(scope="session", autouse=True)
def _ports_of_this_session() -> Iterator[None]:
    """Start services where no other session does: a server that a test killed finds its port free again."""
    with pytest.MonkeyPatch.context() as patch:
        for number, name in enumerate(sorted(ports.DEFAULT_PORTS)):
            patch.setitem(ports.DEFAULT_PORTS, name, 10_000 + os.getpid() % 200 * 100 + 16 * number)
        yield


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """A HEADRACE_HOME for the session; short, and open to the user that Postgres runs as."""
    home = Path(tempfile.mkdtemp(prefix="headrace-test-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)
