"""Contracts made for a test, and what they make of records."""

from datetime import UTC
from typing import Any

from pydantic import create_model

from headrace.contract import Contract, Rejection, Row
from headrace.dataset import CONTRACT_CONFIG
from tests.support.job_contract import Job

JOBS = Contract(Job, key="JOBIDENTIFIER")
FIELDS = [column.field for column in JOBS.columns]


def row(decoded: Row | Rejection) -> dict[str, Any]:
    assert isinstance(decoded, list), decoded
    return dict(zip([*FIELDS, "_extra"], decoded, strict=True))


def rejected(decoded: Row | Rejection) -> Rejection:
    assert isinstance(decoded, Rejection), decoded
    return decoded


def contract(key: str | None = None, /, *, zone: Any = UTC, **fields: Any) -> Contract:
    """A contract of fields as create_model of pydantic takes them."""
    model = create_model("Made", __config__=CONTRACT_CONFIG, **fields)
    return Contract(model, key=key, zone=zone)
