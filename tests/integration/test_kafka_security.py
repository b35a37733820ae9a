"""A broker with SASL_SSL, certificates and ACLs: an admitted user loses nothing, a refused one changes nothing."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import redis
from kafka.errors import KafkaError
from psycopg.conninfo import conninfo_to_dict

from headrace.airflow.page_template import render_figures, render_page
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError, SettingError, SourceRefused
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import plan
from headrace.local.services import postgres_binary
from headrace.monitor.problems import find_problems
from headrace.monitor.status import read_status
from headrace.postgres.ledger import RunContext
from headrace.postgres.roles import DBT, LOADER
from headrace.publish.dead_letter_topic import publish
from headrace.sample.generate import generate, generate_jobs
from headrace.sample.produce import produce
from headrace.settings import Settings
from headrace.sources import kafka as kafka_source
from headrace.verify import verify
from tests.support import oauth_checks, topics
from tests.support.certificates import Authority
from tests.support.commands import headrace
from tests.support.databases import passing_database
from tests.support.jobs import jobs
from tests.support.ledger_checks import assert_ledger
from tests.support.logins import login
from tests.support.mistaken_settings import ODD, mistaken_addresses, with_mistaken_password
from tests.support.secured_kafka import (
    BOOTSTRAP_TIMEOUT_MS,
    PASSWORD,
    USER,
    SecuredKafka,
    by_certificate,
    documented_acls,
    secured_kafka,
    secured_stage,
    sent_jobs,
)
from tests.support.stage import Stage


@pytest.fixture(scope="module")
def broker(session_home: Path, broker_home: Path) -> Iterator[SecuredKafka]:
    """One for all tests; jobs are read, and produced, by user etl with the ACLs that the documentation lists."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        kept = broker_home / "kafka" / "classpath"
        with secured_kafka(session_home / "secured", kept, monkeypatch) as kafka:
            topics.create(kafka.plain, "jobs", 3, retention_ms="-1")
            for operations, topic, group in documented_acls():
                kafka.allow(USER, operations, topic, group=group)
            yield kafka


@pytest.fixture(scope="module")
def stage(
    broker: SecuredKafka, postgres_dsn: str, session_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The dataset jobs, with a dead-letter topic; user etl shows its password by SCRAM."""
    datasets_dir = tmp_path_factory.mktemp("secured") / "datasets"
    datasets_dir.mkdir()
    declared = (Settings().datasets_dir / "jobs.py").read_text()
    assert 'KafkaTopic(topic="jobs"' in declared
    declared = declared.replace('KafkaTopic(topic="jobs"', 'KafkaTopic(topic="jobs", dead_letter_topic="jobs_dlq"')
    (datasets_dir / "jobs.py").write_text(declared)
    with passing_database(postgres_dsn, "secured") as dsn:
        settings = Settings(
            home=session_home,
            postgres_dsn=dsn,
            datasets_dir=datasets_dir,
            batch_rows=50,
            kafka_bootstrap_servers=broker.sasl,
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism="SCRAM-SHA-512",
            kafka_sasl_username=USER,
            kafka_sasl_password=PASSWORD,
            kafka_ssl_cafile=broker.authority.path,
        )
        initialise(Deployment.from_settings(settings))
        yield Stage(Deployment.from_settings(settings), dsn)


def refused(stage: Stage, *said: str, kind: type[HeadraceError] = SourceRefused) -> None:
    """The drain ends in one line that says all this, and changes nothing."""
    books = stage.query("select count(*), max(committed_at) from headrace.batches")
    with pytest.raises(kind) as caught:
        drain_dataset(stage.deployment, "jobs")
    text = str(caught.value)
    for part in (*said, "nothing was changed"):
        assert part in text, text
    assert "\n" not in text
    assert PASSWORD not in text
    assert stage.query("select count(*), max(committed_at) from headrace.batches") == books


def test_whole_way_with_the_documented_acls_loses_nothing(
    stage: Stage, broker: SecuredKafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, dataset = stage.deployment, stage.deployment.dataset("jobs")
    lines = tmp_path / "jobs.kafka"
    lines.write_bytes(b"".join(generate_jobs(200, 4, 10, ours.settings.data_dir / "users.ndjson")))
    with caplog.at_level("INFO", logger="headrace"):
        produce(ours, dataset, lines)
        drain_dataset(ours, "jobs")  # makes the topic of consumer groups
        caplog.clear()
        wait_for_groups(broker)
        topics.send(broker.plain, "jobs", jobs(3))
        drain_dataset(ours, "jobs")
        assert publish(ours, dataset) > 0
        assert (
            stage.value("select count(*) from headrace.dead_letters where dataset = 'jobs' and published_at is null")
            == 0
        )
        assert "was not moved" not in caplog.text  # the consumer group for lag tools
    assert verify(ours, "jobs", deep=True).is_clean
    plain = secured_stage(stage, kafka_sasl_mechanism="PLAIN")
    for one in (plain, by_certificate(stage, broker, USER)):
        topics.send(broker.plain, "jobs", jobs(9))
        assert drain_dataset(one.deployment, "jobs")[1].records == 9
    assert_ledger(stage, sent_jobs(broker))


def wait_for_groups(broker: SecuredKafka) -> None:
    """The first who asks for a group's coordinator makes the broker create the topic of all groups."""
    with topics.admin(broker.plain) as client:
        for _ in range(100):
            with suppress(KafkaError):
                client.list_group_offsets(["headrace.jobs"])
                return
            time.sleep(0.1)


def test_password_that_is_wrong_is_refused_in_one_line_and_loses_nothing(stage: Stage, broker: SecuredKafka) -> None:
    topics.send(broker.plain, "jobs", jobs(3))
    for mechanism in ("PLAIN", "SCRAM-SHA-512"):
        wrong = secured_stage(stage, kafka_sasl_password="not-the-0ne", kafka_sasl_mechanism=mechanism)
        refused(wrong, f"kafka: {broker.sasl}: user etl is refused: Authentication failed", "HEADRACE_KAFKA_*")
    other = secured_stage(stage, kafka_sasl_mechanism="SCRAM-SHA-256")
    refused(other, "found SCRAM-SHA-256, expected a mechanism that it takes: OAUTHBEARER, PLAIN, SCRAM-SHA-512")
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent_jobs(broker))


@pytest.mark.parametrize("operation", ["DESCRIBE", "READ"])
def test_acl_that_is_missing_is_refused_in_one_line_and_loses_nothing(
    operation: str, stage: Stage, broker: SecuredKafka
) -> None:
    # Read, Write and their like imply Describe
    taken = ["READ", "WRITE", "CREATE", "DESCRIBE", "DESCRIBE_CONFIGS"] if operation == "DESCRIBE" else ["READ"]
    topics.send(broker.plain, "jobs", jobs(3))
    broker.forbid(USER, taken, "jobs")
    try:
        wait_until_refused(stage)
        denied = f"jobs: {broker.sasl} does not allow this to user etl"
        refused(stage, denied, "TopicAuthorizationFailed", "docs/security.md")
    finally:
        broker.allow(USER, taken, "jobs")
    wait_until_allowed(stage)
    assert_ledger(stage, sent_jobs(broker))


def wait_until_refused(stage: Stage) -> None:
    """ACLs reach the broker a moment after they are acknowledged."""
    for _ in range(50):
        try:
            drain_dataset(stage.deployment, "jobs")
        except SourceRefused:
            return
        time.sleep(0.1)
    raise AssertionError("was never refused")


def wait_until_allowed(stage: Stage) -> None:
    """Drain as soon as the ACLs are back."""
    for _ in range(50):
        try:
            drain_dataset(stage.deployment, "jobs")
            return
        except SourceRefused:
            time.sleep(0.1)
    raise AssertionError("was never allowed")


def test_certificate_that_is_not_taken_is_refused_in_one_line_and_loses_nothing(
    stage: Stage, broker: SecuredKafka, tmp_path: Path
) -> None:
    topics.send(broker.plain, "jobs", jobs(3))
    stranger = Authority(tmp_path / "stranger", "stranger")
    expired = by_certificate(stage, broker, "expired", valid_for=timedelta(hours=-1))
    refused(expired, "HEADRACE_KAFKA_SSL_CERTFILE", "expired.crt is valid from", "have it renewed", kind=SettingError)
    foreign = stranger.sign(USER)
    with_foreign = secured_stage(
        by_certificate(stage, broker, USER), kafka_ssl_certfile=foreign.certificate, kafka_ssl_keyfile=foreign.key,
        kafka_ssl_password=None,
    )  # fmt: skip
    refused(with_foreign, f"kafka: {broker.tls}: it does not take the certificate", "etl.crt")
    without = secured_stage(
        by_certificate(stage, broker, USER), kafka_ssl_certfile=None, kafka_ssl_keyfile=None, kafka_ssl_password=None
    )
    refused(without, f"kafka: {broker.tls}: it wants a certificate")
    distrusting = secured_stage(stage, kafka_ssl_cafile=stranger.path)
    refused(distrusting, f"kafka: {broker.sasl}: its certificate is not trusted")
    elsewhere = secured_stage(stage, kafka_bootstrap_servers=broker.sasl.replace("127.0.0.1", "localhost"))
    refused(elsewhere, "not trusted: Hostname mismatch")
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent_jobs(broker))


def test_listener_that_speaks_otherwise_is_named_in_one_line(stage: Stage, broker: SecuredKafka) -> None:
    plain = secured_stage(stage, kafka_bootstrap_servers=broker.plain)
    refused(plain, "expected a listener that speaks TLS, as SASL_SSL does")
    plaintext = Settings(
        home=stage.deployment.settings.home,
        postgres_dsn=stage.dsn,
        datasets_dir=stage.deployment.settings.datasets_dir,
        kafka_bootstrap_servers=broker.sasl,
    )
    deployment = Deployment.from_settings(plaintext)
    refused(secured_stage(Stage(deployment, stage.dsn)), "found a listener that speaks TLS, expected PLAINTEXT")


def test_tokens_of_an_endpoint_and_of_aws_are_taken_by_both_clients_and_are_in_no_message(
    stage: Stage, broker: SecuredKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        tokens = oauth_checks.admitted(stage, broker)
        oauth_checks.admitted_by_aws(stage, broker, monkeypatch)
        for one, error, said in oauth_checks.refusals(stage, broker):
            topics.send(broker.plain, "jobs", jobs(1))
            refused(one, said, kind=error)
    assert [secret for secret in ("canary", *tokens) if secret in caplog.text] == []
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent_jobs(broker))


CANARIES = ("canary-postgres", "canary-builder", "canary-redis", PASSWORD, "canary-mistaken")


@pytest.fixture
def secrets(stage: Stage, broker: SecuredKafka, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which every service asks for a password, and each comes from a file."""
    for name in ("jobs.py", "telemetry.py"):
        folder = stage.deployment.settings.datasets_dir if name == "jobs.py" else Settings().datasets_dir
        (tmp_path / name).write_text((folder / name).read_text().replace("telemetry_stream", "canary_stream"))
    with redis.Redis.from_url(redis_url) as client, ExitStack() as logins:
        client.acl_setuser("etl", enabled=True, passwords=[f"+canary-redis{ODD}"], keys=["*"], categories=["+@all"])
        dsns = {
            "POSTGRES_DSN": logins.enter_context(login(stage.dsn, LOADER, "canary_etl", f"canary-postgres{ODD}")),
            "DBT_DSN": logins.enter_context(login(stage.dsn, DBT, "canary_builder", f"canary-builder{ODD}")),
        }
        dsns["DBT_DSN"] = f"postgresql:///?{urlencode(conninfo_to_dict(dsns['DBT_DSN']), quote_via=quote)}"
        files = dsns | {
            "REDIS_URL": f"{redis_url}?username=etl&password={quote(f'canary-redis{ODD}')}",
            "KAFKA_SASL_PASSWORD": PASSWORD,
        }
        for name, text in files.items():
            (tmp_path / name).write_text(f"{text}\n")
        yield {f"HEADRACE_{name}_FILE": str(tmp_path / name) for name in files} | {
            "HEADRACE_HOME": str(tmp_path / "home"),
            "HEADRACE_DATASETS_DIR": str(tmp_path),
            "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": broker.sasl,
            "HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "HEADRACE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "HEADRACE_KAFKA_SASL_USERNAME": USER,
            "HEADRACE_KAFKA_SSL_CAFILE": str(broker.authority.path),
            "HEADRACE_MAX_RETRIES": "0",
        }
        client.acl_deluser("etl")
        client.delete("canary_stream")


@pytest.mark.security("M1")
def test_secrets_are_in_no_output_log_table_nor_page(
    stage: Stage,
    broker: SecuredKafka,
    secrets: dict[str, str],
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_source, "BOOTSTRAP_TIMEOUT_MS", BOOTSTRAP_TIMEOUT_MS)
    readings = tmp_path / "telemetry.ndjson"
    readings.write_bytes(b"".join(generate("telemetry", 20, 1, 20, Settings().data_dir)))
    initialise(stage_of(stage, secrets).deployment)
    topics.send(broker.plain, "jobs", jobs(6))
    said: list[str] = []

    def run(*arguments: str, status: int = 0, **changed: str) -> None:
        replaced = {name.removesuffix("_FILE") for name in changed}
        given = {name: text for name, text in secrets.items() if name.removesuffix("_FILE") not in replaced}
        done = headrace(given | changed, *arguments)
        said.append(done.output)
        assert done.status == status, done

    run("env")
    run("produce", "telemetry", str(readings))
    run("drain", "jobs", HEADRACE_LOG_FORMAT="json")
    run("drain", "telemetry", HEADRACE_LOG_FORMAT="json")
    run("build", "--select", "stg_redis__telemetry telemetry", status=1)  # its tests read marts that are not built
    run("status", "--json")
    run("verify", "telemetry", "--deep")
    run("dead-letters", "telemetry", "--export", str(tmp_path / "home" / "letters"))
    for variable, value in mistaken_addresses(stage, redis_url):
        dataset = "telemetry" if "REDIS" in variable else "jobs"
        run("drain", dataset, status=1, HEADRACE_LOG_FORMAT="json", **{variable: value})
    task = with_mistaken_password(secrets)
    with pytest.raises(SourceRefused):  # what a shell's own settings cause is not stored
        plan(task, task.dataset("jobs"), run=RunContext("a"))
    overview = find_problems(read_status(stage.deployment.connect("test")), stage.deployment.settings)
    said += [render_page("1", render_figures(overview, [])), json.dumps(overview.document())]
    said.append(
        subprocess.run([postgres_binary("pg_dump"), stage.dsn], check=True, capture_output=True, text=True).stdout
    )
    kept = {"pgpass", "pgpass-dbt", "redis_url", "kafka_sasl_password"}
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file() and path.name not in kept:
            said.append(path.read_bytes().decode(errors="replace"))
    assert "canary_stream" in "".join(said)  # it was looked at
    assert stage.value("select count(*) from headrace.observations where error is not null") > 0
    for canary in CANARIES:
        assert [text[max(text.find(canary) - 200, 0) :][:400] for text in said if canary in text] == []


def stage_of(stage: Stage, environ: dict[str, str]) -> Stage:
    """The same database as its owner, with the datasets of this environment."""
    datasets_dir = Path(environ["HEADRACE_DATASETS_DIR"])
    return Stage(Deployment.from_settings(replace(stage.deployment.settings, datasets_dir=datasets_dir)), stage.dsn)
