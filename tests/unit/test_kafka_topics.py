"""Creating a topic: what the broker answers is one short line."""

from typing import Any

import pytest

from headrace.exceptions import HeadraceError, SourceError, SourceRefused
from headrace.sources import kafka_topics
from headrace.sources.kafka_topics import ensure_topic


class Broker:
    """An admin client that sees no topic; its broker answers with a code and a text."""

    def __init__(self, code: int, text: str | None) -> None:
        self.answer = {"name": "jobs_dlq", "error_code": code, "error_message": text}

    def list_topics(self) -> list[str]:
        return []

    def create_topics(self, topics: dict[str, Any], *, raise_errors: bool) -> dict[str, Any]:
        assert not raise_errors
        return {"topics": [self.answer]}

    def wait_for_topics(self, topics: list[str]) -> None:
        assert not self.answer["error_code"]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "text", "kind", "found"),
    [
        (29, None, SourceRefused, "to create topic jobs_dlq, which this client does not see: no reason was given; "),
        (17, "it collides with: jobs.dlq", SourceError, "does not see: it collides with: jobs.dlq; "),
        (44, "min.insync.replicas is 1", SourceError, "does not see: min.insync.replicas is 1; "),
    ],
)
def test_topic_that_is_not_created_is_refused_with_the_brokers_words(
    monkeypatch: pytest.MonkeyPatch, code: int, text: str | None, kind: type[HeadraceError], found: str
) -> None:
    monkeypatch.setattr(kafka_topics, "_admin", lambda _config: Broker(code, text))
    with pytest.raises(kind) as refused:
        ensure_topic({"bootstrap_servers": "b:1"}, "jobs_dlq", 1)
    assert found in str(refused.value)


@pytest.mark.parametrize(("code", "created"), [(0, True), (36, False)])
def test_topic_that_another_process_created_meanwhile_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, code: int, created: bool
) -> None:
    monkeypatch.setattr(kafka_topics, "_admin", lambda _config: Broker(code, "exists"))
    assert ensure_topic({"bootstrap_servers": "b:1"}, "jobs_dlq", 1) is created
