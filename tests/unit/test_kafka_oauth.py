"""SASL OAUTHBEARER and MSK: options of settings and of a connection, and their contradictions."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from headrace import masking
from headrace.exceptions import SettingError, SourceRefused
from headrace.settings import Settings
from headrace.sources.kafka_confluent import translated
from headrace.sources.kafka_oauth import msk_tokens, region_of
from headrace.sources.kafka_security import from_connection, from_settings

OAUTH = {
    "bootstrap.servers": "a:1",
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "OAUTHBEARER",
    "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.client.id": "etl",
    "sasl.oauthbearer.client.secret": "canary-0f-oauth",
    "sasl.oauthbearer.token.endpoint.url": "https://login.example/token",
    "sasl.oauthbearer.scope": "kafka",
}
URL = "sasl.oauthbearer.token.endpoint.url"


def test_settings_and_connection_give_clients_a_provider_and_no_secret() -> None:
    settings = Settings(
        kafka_bootstrap_servers="a:1",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_sasl_username="etl",
        kafka_sasl_password="canary-0f-oauth",
        kafka_sasl_oauth_token_url="https://login.example/token",
        kafka_sasl_oauth_scope="kafka",
    )
    config = from_settings(settings)
    assert config == from_connection(OAUTH, None, None)  # the same provider, too: its token is shared
    assert config == from_connection(
        {name: value for name, value in OAUTH.items() if ".client." not in name}, "etl", "canary-0f-oauth"
    )
    assert config.keys() == {
        "bootstrap_servers", "security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_oauth_token_provider"
    }  # fmt: skip
    assert "canary" not in f"{config} {settings}"
    assert "canary-0f-oauth" in masking.known()
    assert translated(config)["oauth_cb"] == config["sasl_oauth_token_provider"].oauth_cb


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({URL: ""}, f"sasl.mechanism: found OAUTHBEARER without headrace_kafka: {URL}, expected it too"),
        ({"sasl.oauthbearer.client.secret": ""}, "found SASL_SSL without headrace_kafka: sasl.password"),
        ({URL: "http://login.example/token"}, f"{URL}: found no https:// URL without a user"),
        ({URL: "https://me:canary@login.example/token"}, f"{URL}: found no https:// URL without a user"),
        ({"sasl.mechanism": "PLAIN"}, f"{URL}: is of no use with PLAIN, expected .*sasl.mechanism to be OAUTHBEARER"),
        ({"sasl.mechanism": "AWS_MSK_IAM"}, f"{URL}: is of no use with AWS_MSK_IAM"),
        ({"security.protocol": "SSL"}, "is of no use with SSL"),
        ({"https.ca.location": "/absent.pem"}, "https.ca.location: /absent.pem cannot be read"),
        ({"sasl.oauthbearer.method": "default"}, "found 'sasl.oauthbearer.method' in its extra"),
    ],
)
def test_options_that_contradict_each_other_are_refused(extra: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        from_connection(OAUTH | extra, None, None)
    assert "canary" not in str(caught.value)


def test_region_of_msk_comes_from_the_environment_or_the_brokers_name() -> None:
    broker = "b-1.shop.abc12.c3.kafka.eu-west-1.amazonaws.com:9098"
    assert region_of([broker], {}) == "eu-west-1"
    assert region_of([broker], {"AWS_DEFAULT_REGION": "us-east-1"}) == "us-east-1"
    assert region_of(["boot-x.c2.kafka-serverless.us-west-2.amazonaws.com:9098"], {}) == "us-west-2"
    with pytest.raises(SettingError, match=r"^AWS_REGION: not set, and kafka\.example:9098 names no region"):
        region_of(["kafka.example:9098"], {})


def test_signer_of_aws_that_finds_no_credentials_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate_auth_token(_region: str) -> Any:
        raise RuntimeError("no credentials")

    module = ModuleType("aws_msk_iam_sasl_signer")
    module.__dict__["MSKAuthTokenProvider"] = SimpleNamespace(generate_auth_token=generate_auth_token)
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", module)
    with pytest.raises(SourceRefused, match="found no token of AWS for region eu-west-3: RuntimeError: no credentials"):
        msk_tokens("eu-west-3").token()
