"""`headrace up` and `down` against real servers: started, killed, half created, concurrent."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import psycopg
import pytest

from headrace.exceptions import LocalServiceError
from headrace.local import kafka, services
from headrace.local.postgres_roles import admin_dsn
from headrace.settings import Settings, read_services
from tests.support.local_servers import BOTH, query, server_pids, topic_names


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    assert process.poll() is None, "another program's process was ended"
    process.kill()
    process.wait()


def _listeners(pids: dict[str, int]) -> set[str]:
    return {
        connection.laddr.ip
        for pid in pids.values()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_up_twice_starts_nothing_twice(home_settings: Settings, running: dict[str, int]) -> None:
    assert set(running) == {"postgres", "kafka"}

    remembered = services.up(home_settings, only=BOTH)

    assert server_pids(home_settings) == running
    assert remembered == read_services(home_settings.home)
    assert _listeners(running) == {"127.0.0.1"}


def test_up_sets_what_the_loader_relies_on(home_settings: Settings, running: dict[str, int]) -> None:
    names = ("fsync", "synchronous_commit", "client_connection_check_interval", "timezone", "password_encryption")
    found = [query(home_settings, f"show {name}")[0][0] for name in names]

    assert found == ["on", "on", "5s", "UTC", "scram-sha-256"]
    port = read_services(home_settings.home)["postgres"]["port"]
    with psycopg.connect(admin_dsn(home_settings.home, port)) as connection:
        others = connection.execute("select from pg_hba_file_rules where auth_method <> 'scram-sha-256'")
        assert others.fetchall() == []


def test_up_after_both_were_killed_starts_them_with_their_data_and_ports(
    home_settings: Settings, running: dict[str, int]
) -> None:
    query(home_settings, "create table if not exists kept as select 42 as answer")
    topic_names(home_settings, create="kept")
    before = read_services(home_settings.home)
    for pid in running.values():
        os.kill(pid, signal.SIGKILL)

    after = services.up(home_settings, only=BOTH)

    assert after == before
    assert set(server_pids(home_settings).values()).isdisjoint(running.values())
    assert query(home_settings, "select answer from kept") == [(42,)]
    assert "kept" in topic_names(home_settings)


def test_up_with_ports_and_pids_taken_by_others_moves_and_leaves_them_alone(
    home_settings: Settings, running: dict[str, int], stranger: subprocess.Popen[bytes]
) -> None:
    topic_names(home_settings, create="kept")
    before = read_services(home_settings.home)
    services.down(home_settings)
    for name in ("run/postgres.pid", "run/kafka.pid", "postgres/data/postmaster.pid"):
        (home_settings.home / name).write_text(f"{stranger.pid}\n")
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for listener, port in (
            (one, before["postgres"]["port"]),
            (two, before["kafka"]["port"]),
            (three, before["kafka"]["controller_port"]),
        ):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()

        after = services.up(home_settings, only=BOTH)

    moved = [("postgres", "port"), ("kafka", "port"), ("kafka", "controller_port")]
    assert [after[service][key] != before[service][key] for service, key in moved] == [True, True, True]
    assert after == read_services(home_settings.home)
    assert query(home_settings, "select 1") == [(1,)]
    assert "kept" in topic_names(home_settings)  # the advertised listener follows


def test_up_with_a_demanded_port_taken_is_refused_and_starts_nothing(make_home: Callable[[], Settings]) -> None:
    home = make_home().home
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        with pytest.raises(LocalServiceError, match=rf"^HEADRACE_POSTGRES_PORT: port {port} of 127.0.0.1 is taken by"):
            services.up(Settings(home=home, postgres_port=port), only=BOTH)

    assert server_pids(Settings(home=home)) == {}


def test_up_moves_when_its_port_is_lost_at_the_last_moment_or_another_is_demanded(
    make_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    home_settings = make_home()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        lost = listener.getsockname()[1]

        def choose_lost_port(*_: Any, **__: Any) -> int:
            monkeypatch.undo()
            return int(lost)

        monkeypatch.setattr(services, "choose_port", choose_lost_port)
        said: list[str] = []

        moved = services.up(home_settings, only=["postgres"], print_line=said.append)["postgres"]["port"]

    assert moved != lost
    assert f"postgres: port {lost} was taken by another program, choosing another" in said
    demanding = Settings(home=home_settings.home, postgres_port=lost)  # free again by now
    assert services.up(demanding, only=["postgres"])["postgres"]["port"] == lost
    assert query(home_settings, "show port") == [(str(lost),)]


def test_up_makes_half_made_data_directories_again_and_keeps_what_was_in_them(
    make_home: Callable[[], Settings],
) -> None:
    home_settings = make_home()
    for name in ("postgres/data/base", "postgres/data.new/base", "kafka/data/jobs-0", "kafka/data.new"):
        (home_settings.home / name).mkdir(parents=True)
    (home_settings.home / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    (home_settings.home / "kafka" / "data" / "meta.properties").write_text("version=1\nclu")

    services.up(home_settings, only=BOTH)

    assert query(home_settings, "select 1") == [(1,)]
    assert topic_names(home_settings) == set()
    for kept in ("postgres/data.unusable-1/base", "kafka/data.unusable-1/jobs-0"):
        assert (home_settings.home / kept).is_dir()
    assert not list(home_settings.home.glob("*/data.new"))


def test_up_with_services_json_cut_off_finds_what_runs(home_settings: Settings, running: dict[str, int]) -> None:
    before = read_services(home_settings.home)
    (home_settings.home / "services.json").write_text('{"postgres": {"addr')

    # another test may have started a third one
    assert services.up(home_settings, only=BOTH) == {name: found for name, found in before.items() if name in BOTH}
    assert server_pids(home_settings) == running


def test_two_ups_at_once_share_one_server_and_a_lost_password_is_replaced(make_home: Callable[[], Settings]) -> None:
    home_settings = make_home()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: services.up(home_settings, only=["postgres"]), range(2))
    assert first == second

    services.down(home_settings)
    old = (home_settings.home / "postgres" / "pgpass").read_text()
    for name in ("pgpass", "pgpass-admin"):
        (home_settings.home / "postgres" / name).unlink()
    services.up(home_settings, only=["postgres"])

    assert (home_settings.home / "postgres" / "pgpass").read_text() != old
    assert query(home_settings, "select 1") == [(1,)]


def test_up_starts_the_gateway_again_that_was_killed(home_settings: Settings, running: dict[str, int]) -> None:
    topic_names(home_settings, create="kept")
    pid = kafka.gateway_service(home_settings.home.resolve()).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    services.up(home_settings, only=BOTH)

    assert "kept" in topic_names(home_settings)
    assert server_pids(home_settings)["postgres"] == running["postgres"]


def test_up_that_fails_quotes_the_log(make_home: Callable[[], Settings]) -> None:
    home_settings = make_home()
    services.up(home_settings, only=["postgres"])
    services.down(home_settings)
    with (home_settings.home / "postgres" / "data" / "postgresql.conf").open("a") as file:
        file.write("max_connections = lots\n")

    with pytest.raises(LocalServiceError, match=r"(?s)^postgres: ended while it .*see .*postgres\.log, .*\"lots\""):
        services.up(home_settings, only=["postgres"])

    assert server_pids(home_settings) == {}


def test_down_stops_its_own_and_no_other_homes_services(
    home_settings: Settings, running: dict[str, int], make_home: Callable[[], Settings]
) -> None:
    other = make_home()
    services.up(other, only=["postgres"])
    given = Settings(
        home=other.home, kafka_bootstrap_servers=services.environment(home_settings)["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
    )
    assert services.up(given, only=BOTH)["kafka"] == {"address": given.kafka_bootstrap_servers}  # used, not started

    services.down(other)

    assert server_pids(other) == {}
    assert server_pids(home_settings) == running
    assert json.loads((other.home / "services.json").read_text())["postgres"]["port"]  # remembered for the next up
    services.down(other)  # again: nothing to do
