"""What librdkafka is told of kafka-python's settings, and what happens without it."""

import importlib
import logging
import sys

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from headrace.exceptions import SettingError, SourceChanged, SourceError, SourceRefused, SourceUnavailable, TopicMissing
from headrace.sources.kafka_confluent import ConfluentSource, translated
from headrace.sources.kafka_security import OPTIONS


def test_settings_of_a_secured_broker_are_librdkafkas() -> None:
    config = translated(
        {
            "bootstrap_servers": ["one:9093", "two:9093"],
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "loader",
            "sasl_plain_password": "secret",
            "ssl_cafile": "/etc/ca.pem",
            "request_timeout_ms": 15_000,
        }
    )
    assert config == {
        "bootstrap.servers": "one:9093,two:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "loader",
        "sasl.password": "secret",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_librdkafka_knows_every_name() -> None:
    assert [name for name in (*OPTIONS.values(), "no.such.name") if not _is_known(name)] == ["no.such.name"]


def _is_known(name: str) -> bool:
    try:
        confluent_kafka.Consumer({"group.id": "x", name: "x"}, logger=logging.getLogger("test")).close()
    except confluent_kafka.KafkaException as error:
        return "No such configuration property" not in str(error)
    return True


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (KafkaError._AUTO_OFFSET_RESET, SourceChanged, "jobs: the broker no longer serves an offset that it listed"),
        (KafkaError.OFFSET_OUT_OF_RANGE, SourceChanged, "run the drain again to see the range"),
        (KafkaError._LOG_TRUNCATION, SourceChanged, "run the drain again to see the range"),
        (KafkaError._UNKNOWN_TOPIC, TopicMissing, "jobs: the topic vanished while it was read"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissing, "jobs: the topic vanished while it was read"),
        (KafkaError._ALL_BROKERS_DOWN, SourceUnavailable, "kafka: 127.0.0.1:9 did not answer"),
        (KafkaError._AUTHENTICATION, SourceRefused, "user etl is refused"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, SourceRefused, "does not allow this to user etl"),
        (KafkaError._BAD_MSG, SourceError, "a new process may try again"),
    ],
)
def test_errors_are_those_of_the_reference(code: int, kind: type[Exception], said: str) -> None:
    source = ConfluentSource("jobs", {"bootstrap_servers": ["127.0.0.1:9"], "sasl_plain_username": "etl"})
    with pytest.raises(kind, match=said) as raised:
        source._refuse(KafkaError(code))
    assert raised.type is kind
    assert "\n" not in str(raised.value)


def test_setting_without_a_counterpart_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^kafka: sasl_kerberos_name has no counterpart in librdkafka"):
        translated({"bootstrap_servers": "one:9092", "sasl_kerberos_name": "x"})


def test_package_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "headrace.sources.kafka_confluent")
    with pytest.raises(SettingError, match=r"install `headrace\[confluent\]`, or unset HEADRACE_KAFKA_CLIENT$"):
        importlib.import_module("headrace.sources.kafka_confluent")
