"""Nested records as well-known producers send them."""

from typing import Any
from uuid import UUID


def stripe(number: int) -> dict[str, Any]:
    """An event of Stripe's API: seconds since 1970, amounts in cents, a nested object of several shapes."""
    return {
        "id": f"evt_{number:024}", "object": "event", "api_version": "2024-06-20", "created": 1_718_000_000 + number,
        "data": {"object": {"id": f"ch_{number}", "amount": 1999, "currency": "eur", "metadata": {}}},
        "livemode": False, "pending_webhooks": number % 3, "type": "charge.succeeded",
        "request": {"id": None, "idempotency_key": None} if number % 2 else None,
    }  # fmt: skip


def github(number: int) -> dict[str, Any]:
    """A webhook of GitHub's: nested, ISO 8601 times, names that Python and SQL reserve."""
    return {
        "action": "opened", "number": number, "pull_request": {"id": number, "user": {"login": "octocat"}},
        "repository": {"id": 1, "full_name": "octocat/hello", "private": False}, "sender": {"login": "octocat"},
        "ref": "refs/heads/main", "created": number % 2 == 0, "order": number, "from": "a", "pushed_at": 1_718_000_000,
    }  # fmt: skip


def clickstream(number: int) -> dict[str, Any]:
    """An event of Segment's: a message id, camel case, properties of any shape."""
    return {
        "messageId": str(UUID(int=number + 1, version=4)), "type": "track" if number % 2 else "page", "userId": None,
        "anonymousId": str(UUID(int=number % 5 + 1, version=4)),
        "timestamp": f"2026-03-01T10:00:00.{number % 1000:03}Z",
        "context": {"ip": "8.8.8.8", "library": {"name": "analytics.js", "version": "2.1"}},
        "properties": {f"p{number % 20}": number, "deep": [[{"a": [1, {"b": None}]}]]},
    }  # fmt: skip
