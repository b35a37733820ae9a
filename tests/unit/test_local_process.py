"""Whose process a pid is, what is stopped, and what a kill leaves for the next start to repair."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.exceptions import LocalServiceError
from headrace.local.home import locked, secret, set_aside, write_file
from headrace.local.process import Service
from headrace.settings import read_services

# A parent that leaves a child behind when it is killed, as Airflow's scheduler does.
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "run").mkdir()
    (tmp_path / "logs").mkdir()
    service = Service(tmp_path, "probe")
    yield service
    service.stop([(signal.SIGKILL, 5.0)])


@pytest.fixture
def stranger() -> Iterator[int]:
    """Another program's process, in a session of its own."""
    process = subprocess.Popen(_python("import time; time.sleep(60)"), start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


def _wait_until(condition: object, limit_s: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_service_started_is_known_by_pid_and_ports(service: Service) -> None:
    service.start(_python("import time; time.sleep(60)"), ports=[5, 6], env=os.environ)

    again = Service(service.pid_file.parents[1], "probe")
    assert again.pid() == psutil.Process(again.pid()).pid
    assert again.ports() == [5, 6]
    assert os.getsid(again.pid() or 0) == again.pid()


def test_pid_file_of_another_program_is_not_believed_and_it_survives(service: Service, stranger: int) -> None:
    write_file(service.pid_file, f"{stranger}\n5432\n")

    assert service.pid() is None
    assert service.stop() is False
    assert psutil.Process(stranger).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("text", ["", "abc\n", "-1\n", "0\n5432\n", "99999999\n"])
def test_pid_file_that_is_broken_or_stale_counts_as_not_running(service: Service, text: str) -> None:
    service.pid_file.write_text(text)

    assert service.pid() is None
    assert service.stop() is False


def test_service_whose_pid_file_was_lost_is_found_and_stopped(service: Service) -> None:
    service.start(_python("import time; time.sleep(60)"), ports=[], env=os.environ)
    pid = service.pid()
    service.pid_file.unlink()

    assert service.pid() == pid
    assert service.stop() is True
    assert service.pid() is None


def test_service_killed_leaves_a_child_that_the_next_start_ends(service: Service) -> None:
    service.start(_python(PARENT + "print('up', flush=True); time.sleep(60)"), ports=[], env=os.environ)
    _wait_until(lambda: service.log.read_text() == "up\n")
    pid = service.pid()
    assert pid is not None
    (child,) = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    _wait_until(lambda: service.pid() is None)

    service.start(_python("import time; time.sleep(60)"), ports=[], env=os.environ)

    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert service.pid() is not None


def test_service_that_ignores_sigterm_is_killed_when_its_time_is_up(service: Service) -> None:
    service.start(_python(DEAF), ports=[], env=os.environ)
    _wait_until(lambda: service.log.read_text() == "deaf\n")

    assert service.stop([(signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)]) is True

    assert service.pid() is None
    assert not service.pid_file.exists()


def test_service_that_ends_while_it_starts_is_an_error_with_this_starts_last_lines(service: Service) -> None:
    service.log.write_text("yesterday's line\n")
    service.start(_python("raise SystemExit('the disk is on fire')"), ports=[], env=os.environ)

    with pytest.raises(LocalServiceError, match=r"probe: ended while it started, .*probe\.log, which ends:") as caught:
        service.wait(lambda: "nothing answers", 10)

    assert str(caught.value).endswith("which ends: | the disk is on fire")


def test_service_that_is_never_healthy_is_an_error_that_says_what_is_lacking(service: Service) -> None:
    service.start(_python("import time; time.sleep(60)"), ports=[], env=os.environ)

    with pytest.raises(LocalServiceError, match="probe: port 1 does not answer after 0 s, expected it to be healthy"):
        service.wait(lambda: "port 1 does not answer", 0.2)


def test_service_holds_neither_the_output_nor_the_lock_of_its_starter(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from headrace.local.home import locked\n"
        "from headrace.local.process import Service\n"
        f"with locked(Path({str(tmp_path)!r}), print) as home:\n"
        "    argv = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "    Service(home.path, 'probe').start(argv, ports=[], env=os.environ)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        subprocess.run(_python(code), env=env, check=True, capture_output=True, timeout=10)  # ends at end of output
        said: list[str] = []
        with locked(tmp_path, said.append):
            assert said == []
        assert Service(tmp_path, "probe").pid() is not None
    finally:
        Service(tmp_path, "probe").stop([(signal.SIGKILL, 5.0)])


def test_lock_makes_the_second_wait_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with locked(tmp_path, lambda line: waiting.set()):
            order.append("second")

    with locked(tmp_path, order.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_lock_is_held_by_a_command_that_outlives_its_killed_starter(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from headrace.local.home import locked\n"
        f"with locked(Path({str(tmp_path)!r}), print) as home:\n"
        "    home.run(['/bin/sh', '-c', 'echo on > {0}; sleep 0.3; echo over > {0}'], doing='t', limit_s=9)".format(
            tmp_path / "progress"
        )
    )
    starter = subprocess.Popen(_python(code), env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    _wait_until((tmp_path / "progress").exists)
    starter.kill()
    starter.wait()

    with locked(tmp_path, lambda line: None):
        assert (tmp_path / "progress").read_text() == "over\n"


@pytest.mark.parametrize("home", ["file/below", "file", "/proc/headrace"])
def test_home_that_cannot_be_written_is_one_line(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(LocalServiceError, match=r"^HEADRACE_HOME: .* cannot be written: .*; expected") as caught,
        locked(tmp_path / home, print),
    ):
        pass

    assert "\n" not in str(caught.value)


def test_remember_replaces_a_services_json_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text('{"kafka": {"addr')

    with locked(tmp_path, print) as home:
        home.remember("kafka", {"address": "127.0.0.1:9092", "port": 9092})

    assert read_services(tmp_path) == {"kafka": {"address": "127.0.0.1:9092", "port": 9092}}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".services")]


def test_secret_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "room" / "key"

    assert secret(path) == secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_set_aside_keeps_what_was_there_each_time(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "rows").write_text(text)
        set_aside(tmp_path / "data", print)

    assert (tmp_path / "data.unusable-1" / "rows").read_text() == "first"
    assert (tmp_path / "data.unusable-2" / "rows").read_text() == "second"


def test_log_quoted_in_errors_is_readable_by_its_user_alone(service: Service) -> None:
    service.start(_python("print('x', flush=True); import time; time.sleep(60)"), ports=[], env=os.environ)

    assert stat.S_IMODE(service.log.stat().st_mode) == 0o600
