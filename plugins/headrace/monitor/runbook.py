"""The sections of docs/runbook.md that problems lead to."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE = Path(__file__).with_name("runbook.md")  # a link to docs/runbook.md; a file in the wheel
PAGE = "docs/runbook.md"

# words of a problem's text, and the section about it; the first that fits counts
_BY_TEXT: Sequence[tuple[str, str]] = (
    ("another cluster answers at this address", "another-cluster-answers-at-the-address"),
    ("the stream was deleted and created again", "a-redis-stream-was-created-again-or-restored"),
    ("it was deleted and created again", "the-topic-was-deleted-and-created-again"),
    ("retention overtook the checkpoint", "retention-overtook-the-checkpoint"),
    ("a new partition whose log starts at", "a-new-partition-has-lost-its-head"),
    ("the source lost it", "the-log-is-shorter-than-the-checkpoint"),
    ("another run committed first", "another-run-committed-first"),
    ("found no table, expected the", "the-staging-table-is-gone"),
    ("No space left on device", "the-databases-disk-is-full"),
    ("read-only", "the-database-accepts-no-writes"),
    ("permission denied for", "a-permission-is-missing"),
    ("expected Headrace's tables", "headraces-tables-are-missing-or-old"),
    ("lock timeout", "a-drain-hangs"),
    ("dead letters not published", "dead-letters-do-not-reach-their-topic"),
    ("not answer", "a-service-does-not-answer"),
    ("expected a server that answers", "a-service-does-not-answer"),
)
_BY_KIND: Mapping[str, str] = {
    "declaration": "a-declaration-cannot-be-used",
    "dead_letters": "dead-letters-grow",
    "unseen": "a-topic-is-not-checked",
    "follower": "a-topic-is-not-checked",
    "lag": "a-dataset-is-late",
    "freshness": "a-dataset-is-late",
    "unbuilt": "a-dataset-is-late",
    "model": "a-model-or-its-test-fails",
    "airflow": "airflow-itself-does-not-run",
    "import_error": "airflow-cannot-import-a-dag-file",
    "tests": "a-model-or-its-test-fails",
    "database": "a-service-does-not-answer",
}
OTHER = "at-0300"  # the top of the page


def section(kind: str, text: str) -> str:
    """The anchor of the section about a problem of this kind and text."""
    if kind in ("declaration", "dead_letters", "airflow", "import_error"):
        return _BY_KIND[kind]  # their text quotes others
    return next((anchor for words, anchor in _BY_TEXT if words in text), _BY_KIND.get(kind, OTHER))


def address(kind: str, text: str) -> str:
    """The same with the page: docs/runbook.md#<anchor>."""
    return f"{PAGE}#{section(kind, text)}"


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it: lower case, no punctuation, hyphens."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def anchors() -> frozenset[str]:
    """Every anchor that a problem may lead to."""
    return frozenset(anchor for _, anchor in _BY_TEXT) | frozenset(_BY_KIND.values()) | {OTHER}
