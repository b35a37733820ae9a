"""The broker that all workers of a test run use: each further one would take 40 s of CPU.

Databases are each worker's own, because roles and settings are a server's. Topics bear names of their test or number.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from headrace.local import services
from headrace.settings import Settings
from tests.support.folders import fast_folder
from tests.support.local_servers import discard

SESSION_VARIABLE = "PYTEST_SESSION_OF_PROCESS"  # processes inherit it, also those that outlive their parents
TOPICS_PER_WORKER = 100_000
_HOME = pytest.StashKey[Path]()
_IN_WORKER = "shared_broker_home"


def choose_home(config: pytest.Config) -> None:
    """In the process that starts the workers: choose the broker's home, which the first test that asks starts."""
    if not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None):
        path = Path(tempfile.mkdtemp(prefix="headrace-test-", dir=fast_folder()))
        path.chmod(0o755)
        config.stash[_HOME] = path


def tell_worker(node: Any) -> None:
    """Pass the home on to a worker."""
    node.workerinput[_IN_WORKER] = str(node.config.stash[_HOME])


def broker_home(config: pytest.Config, own: Path) -> Path:
    """The home of the broker: all workers' one, or the session's own."""
    given = getattr(config, "workerinput", {}).get(_IN_WORKER)
    return own if given is None else Path(given)


def first_number() -> int:
    """Where this worker begins to number its topics."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")  # of pytest-xdist
    return 1 + TOPICS_PER_WORKER * int(worker.removeprefix("gw"))


def start_broker(home: Path) -> str:
    """Start it, unless another worker has; returns its address."""
    with pytest.MonkeyPatch.context() as patch:
        if SESSION_VARIABLE in os.environ:
            patch.setenv(SESSION_VARIABLE, str(home))  # it outlives the worker that happens to start it
        return str(services.up(Settings(home=home), only=("kafka",), print_line=_quiet)["kafka"]["address"])


def stop_broker(config: pytest.Config) -> str | None:
    """At the end of the run; returns the id that its processes carry, if there may be any."""
    home = config.stash.get(_HOME, None)
    if home is None:
        return None
    discard(Settings(home=home))
    shutil.rmtree(home, ignore_errors=True)
    return str(home)


def _quiet(_line: str) -> None:
    pass
