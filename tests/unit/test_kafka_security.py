"""Kafka's options from settings and from an Airflow connection."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace import masking
from headrace.exceptions import SettingError
from headrace.settings import Settings
from headrace.sources.kafka_probe import why_refused
from headrace.sources.kafka_security import from_connection, from_settings

SASL = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanisms": "SCRAM-SHA-512",
    "sasl.username": "etl",
    "sasl.password": "canary-0f-kafka",
}


def test_settings_without_security_name_only_the_brokers() -> None:
    assert from_settings(Settings(kafka_bootstrap_servers="a:1,b:2")) == {"bootstrap_servers": ["a:1", "b:2"]}


def test_settings_and_connection_say_the_same(tmp_path: Path) -> None:
    environ = {
        "HEADRACE_HOME": str(tmp_path),
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "a:1",
        "HEADRACE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "HEADRACE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "HEADRACE_KAFKA_SASL_USERNAME": "etl",
        "HEADRACE_KAFKA_SASL_PASSWORD": "canary-0f-kafka",
    }
    expected = {
        "bootstrap_servers": ["a:1"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "etl",
        "sasl_plain_password": "canary-0f-kafka",
    }
    assert from_settings(Settings.from_environment(environ)) == expected
    assert from_connection({"bootstrap.servers": "a:1"} | SASL, None, None) == expected
    without = {name: value for name, value in SASL.items() if name not in ("sasl.username", "sasl.password")}
    assert from_connection({"bootstrap.servers": "a:1"} | without, "etl", "canary-0f-kafka") == expected
    of_librdkafka = SASL | {"security.protocol": "sasl_plaintext", "sasl.mechanisms": "scram-sha-512"}
    assert from_connection({"bootstrap.servers": "a:1"} | of_librdkafka, None, None) == expected
    as_number = from_connection({"bootstrap.servers": "a:1"} | SASL | {"sasl.password": 12345}, None, None)
    assert as_number == expected | {"sasl_plain_password": "12345"}
    assert from_connection({"bootstrap_servers": "a:1"}, "etl", "x") == {"bootstrap_servers": ["a:1"]}
    assert "canary-0f-kafka" in masking.known()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"group.id": "mine"}, r"^headrace_kafka: found 'group.id' in its extra, expected some of bootstrap.servers, "),
        ({"sasl.pasword": "x"}, r"^headrace_kafka: found 'sasl.pasword' in its extra"),
        ({"security.protocol": "TLS"}, r"^headrace_kafka: security.protocol: found 'TLS', expected PLAINTEXT or SSL"),
        (SASL | {"sasl.mechanisms": "GSSAPI"}, r"^headrace_kafka: sasl.mechanism: found 'GSSAPI', expected PLAIN or "),
        (
            SASL | {"sasl.mechanism": "PLAIN"},
            "headrace_kafka: found two values of sasl.mechanism in its extra, expected one; remove sasl.mechanism",
        ),
        ({"bootstrap_servers": "b:1"}, "headrace_kafka: found two values of bootstrap.servers in its extra"),
        ({"bootstrap.servers": ["a:1", "b:1"]}, "headrace_kafka: bootstrap.servers: found list, expected text"),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"},
            "SASL_SSL without headrace_kafka: sasl.username",
        ),
        (
            {"sasl.username": "etl"},
            "sasl.username: is of no use with PLAINTEXT, expected .*security.protocol to name SASL",
        ),
        (
            SASL | {"ssl.ca.location": "/x"},
            "ssl.ca.location: is of no use with SASL_PLAINTEXT, expected .* to name SSL",
        ),
        ({"security.protocol": "SSL", "ssl.ca.location": "/absent.pem"}, "/absent.pem cannot be read: No such file"),
        (
            {"security.protocol": "SSL", "ssl.key.location": "/x"},
            "ssl.key.location: found no .*ssl.certificate.location",
        ),
    ],
)
def test_connection_that_contradicts_itself_is_refused_in_one_line(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        from_connection({"bootstrap.servers": "a:1"} | extra, None, None)
    assert "\n" not in str(caught.value)


def test_connection_without_brokers_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^headrace_kafka: its extra has no bootstrap.servers"):
        from_connection({}, None, None)


def test_file_that_is_no_certificate_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not PEM")
    extra = {"bootstrap.servers": "a:1", "security.protocol": "SSL", "ssl.ca.location": str(path)}
    with pytest.raises(SettingError, match=rf"^headrace_kafka: ssl.ca.location: {path} cannot be used: .*in PEM"):
        from_connection(extra, None, None)


def test_broker_that_cannot_be_reached_tells_nothing() -> None:
    assert why_refused({"bootstrap_servers": ["127.0.0.1:1", "no-port", "no-such-host.invalid:9092"]}) is None


@pytest.mark.parametrize(
    "response", [b"", b"\0\0\0\2xx", b"\0\0\0\x0e" + b"A" * 14, b"HTTP/1.1 400 Bad Request\r\n\r\n"]
)
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT", "SSL"])
def test_server_that_is_no_broker_tells_nothing_that_could_fail(response: bytes, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                client.recv(65_536)
                client.sendall(response)

        threading.Thread(target=serve, daemon=True).start()
        sasl = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "etl", "sasl_plain_password": "canary-0f-kafka"}
        config = {"bootstrap_servers": [f"127.0.0.1:{listener.getsockname()[1]}"], "security_protocol": protocol} | sasl
        found = why_refused(config)
    assert found is None or "expected a listener that speaks TLS" in found
