"""What every suite shares: an environment without our settings, folders that other users can reach."""

import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from headrace import masking
from headrace.local import ports

pytest.register_assert_rewrite("tests.support")  # before anything of it is imported

from tests.support import shared_broker  # noqa: E402
from tests.support.folders import fast_folder  # noqa: E402
from tests.support.shared_broker import SESSION_VARIABLE  # noqa: E402

TESTS = Path(__file__).parent
# Costs first: in a process whose memory is in pieces, as other tests leave it, a megabyte costs 50 times
# a tenth of it, which is linear in a new one. Then those that take long: small ones fill the end.
SUITES = ("cost", "system", "faults", "integration", "unit")
# a schema registry takes 10 s of CPU to start
REGISTRY_TESTS = {
    "test_airflow_connections.py",
    "test_format_conformance.py",
    "test_fuzz_drain.py",
    "test_infer.py",
    "test_where.py",
}
GONE_WITHIN_S = 15


class DeploymentScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Give each worker a file at a time; tests/system, which share a deployment, and what needs a registry to one."""

    def _split_scope(self, nodeid: str) -> str:
        path = str(super()._split_scope(nodeid))
        if path.startswith("tests/system/"):
            return "tests/system"
        return "registry" if Path(path).name in REGISTRY_TESTS else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> DeploymentScheduling | None:
    """How `make test` hands out tests."""
    return DeploymentScheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Choose what the workers share; take SIGTERM as Ctrl-C, so that servers are stopped."""
    if not hasattr(session.config, "workerinput"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    shared_broker.choose_home(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each worker."""
    shared_broker.tell_worker(node)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop what the workers shared; the run fails if a process of it is left."""
    shared = shared_broker.stop_broker(session.config)
    if shared is not None and (left := _left_after(shared, GONE_WITHIN_S)):
        print("processes that the workers shared are left:", *left, sep="\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among modules and tests: they stay, and each search would visit all of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the suites, after the shuffle of pytest-randomly."""
    items.sort(key=lambda item: SUITES.index(_suite(item)))


def _suite(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0]


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail the session if a process that it started is left at its end: a server, a command, a fork of one."""
    session = f"{os.getpid()}-{time.time_ns()}"
    os.environ[SESSION_VARIABLE] = session
    yield
    del os.environ[SESSION_VARIABLE]
    # multiprocessing's server of forks would end by itself, some time after this process
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    if left := _left_after(session, GONE_WITHIN_S):
        pytest.fail("processes of this session are left:\n" + "\n".join(left))


def _left_after(session: str, seconds: float) -> list[str]:
    """The processes that are still there when so many seconds have passed."""
    deadline = time.monotonic() + seconds
    while (left := _processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _processes_of(session: str) -> list[str]:
    """A line for each process but this one and multiprocessing's resource tracker, which ends with this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is gone, or another user's
            line = " ".join(process.cmdline())
            is_ours = process.pid != os.getpid() and process.environ().get(SESSION_VARIABLE) == session
            if is_ours and process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in line:
                found.append(f"{process.pid}, child of {process.ppid()}: {line}")
    return found


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_caller(_no_process_is_left: None) -> Iterator[None]:
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
def _ports_of_this_session(_no_process_is_left: None) -> Iterator[None]:
    """Start services where no other session does: a server that a test killed finds its port free again."""
    with pytest.MonkeyPatch.context() as patch:
        for number, name in enumerate(sorted(ports.DEFAULT_PORTS)):
            patch.setitem(ports.DEFAULT_PORTS, name, 10_000 + os.getpid() % 200 * 100 + 16 * number)
        yield


@pytest.fixture(scope="module", autouse=True)
def _secrets_of_this_module() -> Iterator[None]:
    """Forget a module's secrets behind it: each text that is masked would be searched for thousands."""
    secrets, unread = set(masking._secrets), list(masking._unread)
    yield
    masking._secrets &= secrets
    masking._unread[:] = unread


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """A HEADRACE_HOME for the session; short, and open to the user that Postgres runs as."""
    home = Path(tempfile.mkdtemp(prefix="headrace-test-", dir=fast_folder()))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)
