"""What a secured broker and a token endpoint do with tokens: admitted drains, and refusals with what they say."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from headrace.exceptions import HeadraceError, SourceRefused, SourceUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.sources import kafka_oauth
from tests.support import topics
from tests.support.certificates import Authority
from tests.support.jobs import jobs
from tests.support.secured_kafka import SecuredKafka, secured_stage
from tests.support.stage import Stage
from tests.support.token_endpoint import CLIENT, SCOPE, SECRET, TokenEndpoint, unsecured_token


def by_tokens(stage: Stage, broker: SecuredKafka, endpoint: TokenEndpoint, **settings: Any) -> Stage:
    """The same, with tokens of the endpoint."""
    given = {
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_sasl_username": CLIENT,
        "kafka_sasl_password": SECRET,
        "kafka_sasl_oauth_token_url": endpoint.url,
        "kafka_sasl_oauth_scope": SCOPE,
        "kafka_sasl_oauth_cafile": broker.authority.path,
    }
    return secured_stage(stage, **(given | settings))


def admitted(stage: Stage, broker: SecuredKafka) -> list[str]:
    """Both clients read; a token serves all their connections until most of its lifetime is over. Returns tokens."""
    with TokenEndpoint(broker.authority).serving() as endpoint:
        for client in ("kafka-python", "confluent"):
            topics.send(broker.plain, "jobs", jobs(5))
            one = by_tokens(stage, broker, endpoint, kafka_client=client)
            assert drain_dataset(one.deployment, "jobs")[1].records == 5
        assert len(endpoint.issued) == 1
        tokens = one.deployment.kafka()["sasl_oauth_token_provider"]
        tokens._renew_at = time.time() - 1
        assert tokens.oauth_cb("") == (endpoint.issued[1], tokens._expires_at)
    assert len(endpoint.issued) == 2
    return endpoint.issued


def admitted_by_aws(stage: Stage, broker: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signer of AWS is asked for the region's token."""
    asked: list[str] = []

    def generate_auth_token(region: str) -> tuple[str, int]:
        asked.append(region)
        return unsecured_token("etl"), int((time.time() + 300) * 1000)

    module = ModuleType("aws_msk_iam_sasl_signer")
    module.__dict__["MSKAuthTokenProvider"] = SimpleNamespace(generate_auth_token=generate_auth_token)
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", module)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    kafka_oauth.msk_tokens.cache_clear()
    aws = {"kafka_sasl_mechanism": "AWS_MSK_IAM", "kafka_sasl_username": None, "kafka_sasl_password": None}
    for client in ("kafka-python", "confluent"):
        topics.send(broker.plain, "jobs", jobs(5))
        assert drain_dataset(secured_stage(stage, **aws, kafka_client=client).deployment, "jobs")[1].records == 5
    assert asked == ["eu-west-1"]


def refusals(stage: Stage, broker: SecuredKafka) -> Iterator[tuple[Stage, type[HeadraceError], str]]:
    """A stage, the error of its drains, and what that says."""
    with TokenEndpoint(broker.authority).serving() as endpoint:
        place = f"kafka: token endpoint {endpoint.url}"
        wrong = by_tokens(stage, broker, endpoint, kafka_sasl_password="canary-wrong")
        yield (
            wrong,
            SourceRefused,
            f"{place}: found status 401 (invalid_client), expected an access token",
        )
        stranger = Authority(broker.authority.path.parent / "stranger", "stranger")
        distrusting = by_tokens(stage, broker, endpoint, kafka_sasl_oauth_cafile=stranger.path)
        yield distrusting, SourceRefused, f"{place}: its certificate or its TLS is not accepted: unable to get local"
        for status, error in ((503, SourceUnavailable), (307, SourceRefused)):
            endpoint.status = status
            yield renewed(by_tokens(stage, broker, endpoint)), error, f"found status {status}"
        endpoint.status, endpoint.subject = 200, "stranger"
        other = renewed(by_tokens(stage, broker, endpoint))
        yield other, SourceRefused, f"jobs: {broker.sasl} does not allow this to user etl"
        endpoint.subject, endpoint.lifetime_s = "etl", -60.0
        expired = renewed(by_tokens(stage, broker, endpoint))
        yield expired, SourceRefused, f"kafka: {broker.sasl}: user etl is refused"
    gone = renewed(by_tokens(stage, broker, endpoint))
    yield gone, SourceUnavailable, f"{place} did not answer: [Errno 111] Connection refused"


def renewed(stage: Stage) -> Stage:
    """The same without the tokens of this process, and without retries."""
    kafka_oauth.endpoint_tokens.cache_clear()
    settings = replace(stage.deployment.settings, max_retries=0)
    return Stage(replace(stage.deployment, settings=settings), stage.dsn)
