"""A broker that requires a password or a certificate for every client, and an ACL for every request."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace.deployment import Deployment
from headrace.local import kafka
from headrace.local.home import locked
from headrace.local.ports import choose_port
from headrace.sources.kafka import KafkaSource
from tests.support import topics
from tests.support.certificates import Authority
from tests.support.stage import Stage

PASSWORD = "canary-kafka-passw0rd"
USER = "etl"
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
BOOTSTRAP_TIMEOUT_MS = 1_000  # how long a broker that rejects every client is tried; 8 s otherwise

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
BEARER = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
# beside the gateway, through which tests prepare topics and ACLs as the super user
LISTENERS = {
    "listeners=": ",SASL_SSL://127.0.0.1:{sasl_port},SSL://127.0.0.1:{ssl_port}",
    "advertised.listeners=": ",SASL_SSL://127.0.0.1:{sasl_port},SSL://127.0.0.1:{ssl_port}",
    "listener.security.protocol.map=": ",SASL_SSL:SASL_SSL,SSL:SSL",
}
SECURED = """\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.ssl.ssl.client.auth=required
listener.name.ssl.ssl.principal.mapping.rules=RULE:^CN=(.*)$/$1/
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={plain} required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram} required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={bearer} required unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:headrace
"""


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """Its listeners, and who signed its certificate."""

    plain: str
    sasl: str
    tls: str
    authority: Authority

    def allow(self, user: str, operations: Sequence[str], topic: str = "", *, group: str = "") -> None:
        """Add an ACL for a user on a topic or a group."""
        with topics.admin(self.plain) as client:
            client.create_acls([_acl(user, operation, topic, group) for operation in operations])

    def forbid(self, user: str, operations: Sequence[str], topic: str) -> None:
        """Take an ACL away again."""
        with topics.admin(self.plain) as client:
            client.delete_acls([_acl(user, operation, topic, "") for operation in operations])


def _acl(user: str, operation: str, topic: str, group: str) -> Any:
    kind = ResourceType.GROUP if group else ResourceType.TOPIC
    pattern = ResourcePattern(kind, group or topic, ACLResourcePatternType.LITERAL)
    return ACL(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern)


@contextmanager
def secured_kafka(folder: Path, classpath: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecuredKafka]:
    """Start one, with a user who may come in by PLAIN and by SCRAM-SHA-512; it is stopped at the end."""
    authority = Authority(folder / "certificates", "broker authority")
    signed = authority.sign("broker", "127.0.0.1")
    ports: list[int] = []
    for _ in range(4):
        ports.append(choose_port("kafka", demanded=None, remembered=None, reserved=set(ports)))
    names = {"user": USER, "password": PASSWORD, "plain": PLAIN, "scram": SCRAM, "bearer": BEARER}
    stores = {"keystore": signed.both, "truststore": authority.path}
    listeners = {"sasl_port": ports[2], "ssl_port": ports[3]}
    lines = [
        line + LISTENERS.get(line[: line.index("=") + 1], "").format(**listeners)
        for line in kafka.PROPERTIES.splitlines()
    ]
    monkeypatch.setattr(kafka, "PROPERTIES", "\n".join([*lines, SECURED.format(**stores, **names)]))
    if classpath.exists():  # the session's broker has found its jars
        (folder / "kafka").mkdir(parents=True)
        shutil.copy(classpath, folder / "kafka" / "classpath")
    with locked(folder, lambda _: None) as home:
        try:
            kafka.start(home, ports[0], ports[1], lambda _: None)
            plain, sasl, tls = (f"127.0.0.1:{ports[n]}" for n in (0, 2, 3))
            made = SecuredKafka(plain, sasl, tls, authority)
            with topics.admin(made.plain) as client:
                scram = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, PASSWORD)
                client.alter_user_scram_credentials([scram])
            yield made
        finally:
            kafka.stop(home.path)


def documented_acls() -> list[tuple[list[str], str, str]]:
    """Operations, topic and group of each command in docs/security.md."""
    lines = re.findall(r"^kafka-acls --add --allow-principal User:etl (.*)$", SECURITY.read_text(), re.MULTILINE)
    assert len(lines) == 5
    names = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
    return [
        (
            [names.get(each, each.upper()) for each in re.findall(r"--operation (\w+)", line)],
            "".join(re.findall(r"--topic (\S+)", line)),
            "".join(re.findall(r"--group (\S+)", line)),
        )
        for line in lines
    ]


def secured_stage(stage: Stage, **settings: Any) -> Stage:
    """The same, configured otherwise, and impatient."""
    deployment = Deployment.from_settings(replace(stage.deployment.settings, **settings))
    short_timeouts = replace(
        deployment, kafka=lambda: {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS} | dict(deployment.kafka())
    )
    return Stage(short_timeouts, stage.dsn)


def by_certificate(stage: Stage, broker: SecuredKafka, name: str, **validity: Any) -> Stage:
    """The same, by a client's certificate; its key has a password."""
    signed = broker.authority.sign(name, password="key-passw0rd", **validity)
    return secured_stage(
        stage,
        kafka_bootstrap_servers=broker.tls,
        kafka_security_protocol="SSL",
        kafka_sasl_mechanism=None,
        kafka_sasl_username=None,
        kafka_sasl_password=None,
        kafka_ssl_certfile=signed.certificate,
        kafka_ssl_keyfile=signed.key,
        kafka_ssl_password="key-passw0rd",
    )


def sent_jobs(broker: SecuredKafka) -> list[tuple[int, int]]:
    """The coordinates of all records that are in the topic."""
    source = KafkaSource("jobs", {"bootstrap_servers": [broker.plain]})
    try:
        return [(p, n) for p, found in source.describe().partitions.items() for n in range(found.end_offset)]
    finally:
        source.close()
