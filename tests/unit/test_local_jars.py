"""Kafka's jars are the pinned ones, or nothing is run from them."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.exceptions import LocalServiceError
from headrace.local import jars
from headrace.local.home import Home
from tests.benchmarks.peers import debezium

JARS = 25
Serve = Callable[..., None]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "jars.sha256"
    path.write_text("".join(f"{digest(b'%d' % i)}  org/example/{i}/1/{i}-1.jar\n" for i in range(JARS)))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home" / "kafka").mkdir(parents=True)
    return Home(tmp_path / "home", -1)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Have jgo's cache, and Maven Central, hold other contents than the pinned ones in some jars."""

    def serve(cached: dict[int, bytes], central: dict[int, bytes] | Exception | None = None) -> None:
        def build(_endpoint: str, own: Path | None) -> list[Path]:
            contents = cached if own is None else central if central is not None else {}
            if isinstance(contents, Exception):
                raise contents
            folder = own or tmp_path / "cache"
            folder.mkdir(exist_ok=True)
            paths = [folder / f"{i}-1.jar" for i in range(JARS)]
            for i, path in enumerate(paths):
                path.write_bytes(contents.get(i, b"%d" % i))
            return paths

        monkeypatch.setattr(jars, "_build", build)

    return serve


def test_pins_name_each_jar_of_the_broker_its_tools_and_the_benchmarks_peer_once() -> None:
    for path, names in (
        (jars.PINS, {"kafka_2.13-4.3.1.jar", "kafka-tools-4.3.1.jar", "slf4j-simple-1.7.36.jar"}),
        (debezium.PINS, {"connect-runtime-4.3.1.jar", "debezium-connector-jdbc-3.3.1.Final.jar"}),
    ):
        found = jars.pinned(path)
        assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in found.values())
        assert len({Path(each).name for each in found}) == len(found) == len(path.read_text().splitlines())
        assert names <= {Path(each).name for each in found}


def test_jars_that_are_pinned_are_remembered_and_compared_at_each_start(home: Home, pins: Path, serve: Serve) -> None:
    reported: list[str] = []
    serve({})
    first = jars.classpath(home, reported.append, pins=pins)
    serve({}, ConnectionError("no network"))
    assert jars.classpath(home, reported.append, pins=pins) == first
    assert len(first) == JARS and len(reported) == 1


@pytest.mark.security("S1")
@pytest.mark.parametrize("change", [b"another", b"", None])
def test_jar_that_changed_in_the_cache_is_replaced_by_the_released_one(
    home: Home, pins: Path, serve: Serve, change: bytes | None
) -> None:
    reported: list[str] = []
    serve({})
    first = jars.classpath(home, reported.append, pins=pins)
    serve({7: b"another"}, {})
    if change is None:
        first[7].unlink()
    else:
        first[7].write_bytes(change)
    found = jars.classpath(home, reported.append, pins=pins)
    assert found[7].read_bytes() == b"7" and found[7] != first[7]
    assert (
        f"{first[7]}: found SHA-256 {digest(b'another')}, expected {digest(b'7')}: its cache is not used"
        in reported[-1]
    )


@pytest.mark.security("S1")
def test_jar_that_is_served_and_is_not_the_pinned_one_is_refused(home: Home, pins: Path, serve: Serve) -> None:
    serve({3: b"cached"}, {3: b"served"})
    jar = home.path / "kafka" / "jars" / "3-1.jar"
    with pytest.raises(LocalServiceError) as refused:
        jars.classpath(home, lambda _: None, pins=pins)
    assert str(refused.value) == (
        f"kafka: {jar}: found SHA-256 {digest(b'served')}, expected {digest(b'3')}; nothing was run; have the mirror "
        "of Maven Central serve the released file and try again, or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS to a broker"
    )
    assert not jar.exists() and not (home.path / "kafka" / "classpath").exists()


def test_jar_that_changed_is_named_where_no_other_can_be_had(home: Home, pins: Path, serve: Serve) -> None:
    serve({3: b"cached"}, ConnectionError("no network"))
    with pytest.raises(LocalServiceError, match=f"no network; .*3-1.jar: found SHA-256 {digest(b'cached')}, expected"):
        jars.classpath(home, lambda _: None, pins=pins)


@pytest.mark.security("S1")
def test_jar_that_is_not_pinned_at_all_is_refused(home: Home, pins: Path, serve: Serve) -> None:
    lines = pins.read_text().splitlines(keepends=True)
    pins.write_text("".join(lines[:-1]))
    serve({})
    with pytest.raises(
        LocalServiceError, match=r"24-1.jar: found a jar that jars.sha256 does not name, expected one of"
    ):
        jars.classpath(home, lambda _: None, pins=pins)


def test_installed_package_has_the_pins() -> None:
    assert os.access(jars.PINS, os.R_OK)
    assert '"local/*.sha256"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_cache_that_another_home_downloads_into_is_waited_for_but_not_for_ever(
    home: Home, pins: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "jgo"))
    serve({})
    with jars._cache_to_itself(print):
        told: list[str] = []
        waiting = threading.Thread(target=jars.classpath, args=(home, told.append, jars.BROKER, pins))
        waiting.start()
        deadline = time.monotonic() + 30
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert waiting.is_alive()
        assert told[-1] == f"kafka: waiting for another `headrace up` that downloads into {tmp_path / 'jgo'}"
    waiting.join(30)
    assert not waiting.is_alive()
    monkeypatch.setattr(jars, "CACHE_WAIT_S", 0.1)
    with jars._cache_to_itself(print), jars._cache_to_itself(told.append):
        assert len(told) == 3  # it waited, then went on


def test_cache_that_cannot_be_locked_is_used_all_the_same(
    home: Home, pins: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "file" / "jgo"))
    serve({})
    assert len(jars.classpath(home, print, jars.BROKER, pins)) == JARS
