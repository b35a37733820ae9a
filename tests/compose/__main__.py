"""docker-compose.yml from `config` to `down --volumes`, as a user runs it: `make test-compose`.

Exit status: 0 if all checks pass, 1 with the failed ones, 77 with "NOT RUN" without a container engine.
"""

import argparse
import fcntl
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.compose.engine import Engine, NotAvailable, engine
from tests.compose.extended import airflow_image, check_extended
from tests.compose.images import provide, remove
from tests.compose.plugin import compose_command
from tests.compose.scale import UP, check_scale
from tests.compose.stack import ROOT, Stack, images, new_stack
from tests.support import jobs_oracle
from tests.support.debian import cache_folder

RECORDS = 20_000
LOCATION = "LOC_1294"
NOT_RUN = 77
LONG_RUNNING = {
    *("postgres", "kafka", "kafka-ui", "valkey", "api-server", "scheduler", "dag-processor", "triggerer"),
}
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")

BEGAN = time.monotonic()


def say(line: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - BEGAN:6.0f} s  {line}", flush=True)


def check_default(stack: Stack) -> None:
    """The default profile: build, up, health, commands, main job, down."""
    build(stack)
    stack.compose("up", "--detach", "--no-build")
    check_health(stack, LONG_RUNNING)
    check_users(stack)
    path = produce_jobs(stack)
    run_main_job(stack, path)
    check_published(stack)
    check_logs(stack)
    stack.compose("up", "--detach", "--no-build")  # init runs again
    stack.wait_healthy()
    stack.headrace("verify", "--deep")
    say("up again: init changed nothing, verify --deep is clean")


def check_workers(stack: Stack) -> None:
    """The profile `scale`: the same, with two workers, one of which is killed, and cut off."""
    build(stack)
    stack.compose(*UP)
    services = check_health(stack, LONG_RUNNING | {"worker"})
    assert len(services["worker"]) == 2
    run_main_job(stack, produce_jobs(stack))
    check_scale(stack, say)
    check_logs(stack)


def build(stack: Stack) -> None:
    """Check the file and build the image, or find it built."""
    stack.compose("config", "--quiet")
    say("config: accepted")
    stack.compose("build", limit_s=3_000)
    say("build: the Dockerfile of this checkout")


def check_health(stack: Stack, expected: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Every service is healthy by its own check; init has ended well."""
    services = stack.wait_healthy()
    assert services.keys() == expected | {"init"}, f"found {sorted(services)}"
    say(f"up: healthy are {', '.join(sorted(expected))}; init ended with 0")
    return services


def check_users(stack: Stack) -> None:
    """No container is root or has a capability, its file system is read-only, and no command line has a secret."""
    for service in AIRFLOW:
        assert stack.compose("exec", "--no-TTY", service, "id", "-u").strip() == "50000", service
    for service in sorted(LONG_RUNNING):
        status = stack.compose("exec", "--no-TTY", service, "cat", "/proc/1/status")
        rights = dict(re.findall(r"^(Uid|CapEff|CapBnd|NoNewPrivs):\s+(\S+)", status, re.M))
        assert rights.pop("Uid") != "0", service
        assert {name: int(value, 16) for name, value in rights.items()} == {"CapEff": 0, "CapBnd": 0, "NoNewPrivs": 1}
        writes = stack.compose("exec", "--no-TTY", service, "sh", "-c", "touch /etc/x 2>&1 || true")
        assert "Read-only file system" in writes or service == "kafka", f"{service}: {writes}"
        words = stack.compose("exec", "--no-TTY", service, "cat", "/proc/1/cmdline")
        assert not [name for name, secret in stack.secrets().items() if secret in words], service
    say("containers: no root, no capability, read-only; no secret on a command line")


def produce_jobs(stack: Stack) -> Path:
    """The commands that are used locally: generate, produce; returns the file."""
    name = "/tmp/jobs.kafka"
    generate = ("generate", "jobs", "--records", str(RECORDS), "--seed", "3", "--bad-percent", "2", "--out", name)
    stack.headrace(*generate)
    stack.headrace("produce", "jobs", name)
    path = stack.env_file.with_name("jobs.kafka")
    path.write_text(stack.compose("exec", "--no-TTY", "scheduler", "cat", name))
    say(f"headrace generate, headrace produce: {RECORDS:,} jobs, 2 % of them invalid")
    return path


def run_main_job(stack: Stack, path: Path) -> None:
    """load_users, ingest_jobs, build_marts, answer_case through the API; the answers are the oracle's."""
    api = stack.api()
    for dag_id in ("load_users", "ingest_jobs", "build_marts"):
        api.wait(api.trigger(dag_id, {}))
    run = api.trigger("answer_case", {"location": LOCATION, "service": "SERVICE_01", "limit": 5})
    api.wait(run)
    say("Airflow's API: load_users, ingest_jobs, build_marts, answer_case succeeded")
    expected = jobs_oracle.top_users(
        jobs_oracle.current_jobs(path), jobs_oracle.user_locations(ROOT / "data-files" / "users.ndjson")
    )
    answered = [(int(row["userid"]), Decimal(row["revenue"])) for row in api.result(run, "answer")["top_users"]]
    assert answered == expected[LOCATION], f"{answered}, expected {expected[LOCATION]}"
    marts = stack.query("select userid, revenue from marts.top_users(%s)", LOCATION)
    assert [(row["userid"], row["revenue"]) for row in marts] == expected[LOCATION]
    jobs = list(jobs_oracle.valid_jobs(path))
    (found,) = stack.query(
        "select (select count(*) from staging.jobs) as staged, "
        "(select count(*) from headrace.dead_letters where dataset = 'jobs') as dead"
    )
    assert found == {"staged": sum(job is not None for job in jobs), "dead": sum(job is None for job in jobs)}
    say(f"marts: {LOCATION} as the oracle has it; {found['staged']:,} staged, {found['dead']:,} dead letters")
    assert "jobs" in stack.headrace("status")
    stack.headrace("verify", "--deep")
    say("headrace verify --deep: clean")


def check_published(stack: Stack) -> None:
    """What is published is there on 127.0.0.1, Airflow's and the page's login included."""
    assert stack.get("KAFKA_UI_PORT", "/actuator/health").json()["status"] == "UP"
    assert stack.get("AIRFLOW_PORT", "/api/v2/monitor/health").json()["scheduler"]["status"] == "healthy"
    assert stack.get("AIRFLOW_PORT", "/headrace/status").status_code == 401
    values = stack.values()
    for name, service, inside in (
        ("POSTGRES_PORT", "postgres", "5432"),
        ("KAFKA_PORT", "kafka", "19092"),
        ("VALKEY_PORT", "valkey", "6379"),
    ):
        assert stack.compose("port", service, inside).strip() == f"127.0.0.1:{values[name]}", service
    check_kafka_from_the_host(values["KAFKA_PORT"])
    say("published ports: Airflow, the page behind its login, Kafka UI, Postgres, Valkey; Kafka from the host")


def check_kafka_from_the_host(port: str) -> None:
    """The broker advertises to this side an address that this side reaches."""
    from confluent_kafka.admin import AdminClient

    metadata = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"}).list_topics(timeout=30)
    assert "jobs" in metadata.topics
    (broker,) = metadata.brokers.values()
    assert f"{broker.host}:{broker.port}" == f"127.0.0.1:{port}"


def check_logs(stack: Stack) -> None:
    """No container has printed a secret."""
    text = stack.compose("logs", "--no-color")
    assert len(text) > 1_000
    for name, secret in stack.secrets().items():
        assert secret not in text, f"{name} is in the containers' logs"
    say("logs: no secret of .env is in them")


def check_nothing_left(stack: Stack) -> None:
    """down --volumes, and no container, volume or network."""
    stack.compose("down", "--volumes", "--timeout", "60")
    left = stack.left()
    assert not any(left.values()), f"down --volumes left {left}"
    say("down --volumes: no container, volume or network is left")


@contextmanager
def running(engine: Engine, words: list[str], executor: str | None, stand_ins: list[str]) -> Iterator[Stack]:
    """A stack that is taken down whatever happens."""
    with tempfile.TemporaryDirectory(prefix="headrace-compose-") as room:
        stack = new_stack(engine, words, Path(room), executor, stand_ins)
        try:
            yield stack
        except BaseException:
            print(stack.compose("logs", "--no-color", "--tail", "40", check=False), file=sys.stderr)
            raise
        finally:
            stack.compose("down", "--volumes", "--timeout", "10", check=False)


PARTS: dict[str, tuple[str | None, Callable[[Stack], None]]] = {
    "default": (None, check_default),
    "scale": ("CeleryExecutor", check_workers),
}
EXTENDED = "extended"  # Airflow's own image, as docs/your-airflow.md extends it


def run_part(part: str, docker: Engine, words: list[str], stand_ins: list[str]) -> None:
    """Run a part and see that nothing of it is left."""
    if part == EXTENDED:
        with tempfile.TemporaryDirectory(prefix="headrace-extended-") as room:
            check_extended(docker, Path(room), say)
        return
    executor, check = PARTS[part]
    with running(docker, words, executor, stand_ins) as stack:
        check(stack)
        check_nothing_left(stack)


def main() -> int:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS, EXTENDED], help="default: all of them")
    chosen = parser.parse_args().parts or [*PARTS, EXTENDED]
    wanted = [] if chosen == [EXTENDED] else images()
    wanted += [airflow_image()] if EXTENDED in chosen else []
    cache = cache_folder() / "compose"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one engine, one set of images
        try:
            with engine(cache, say) as docker:
                words = compose_command(docker, cache, say)
                stand_ins = provide(docker, wanted, cache, say)
                try:
                    for part in chosen:
                        run_part(part, docker, words, stand_ins)
                finally:
                    if not docker.is_ours:
                        remove(docker, stand_ins)
        except NotAvailable as error:
            print(f"\nNOT RUN: test-compose: {error}\n", file=sys.stderr)
            return NOT_RUN
    say("all of it holds: " + ", ".join(chosen))
    print(f"stand-ins, made of wheels and jars: {', '.join(stand_ins) or 'none, all images are the real ones'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes down what runs, as Ctrl-C does
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    sys.exit(main())
