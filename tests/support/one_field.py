"""A contract of one field, v; what it makes of a value, and why it rejects one."""

from typing import Any

from pydantic import create_model

from headrace.contract import Contract, Rejection
from headrace.dataset import CONTRACT_CONFIG


def one_field(kind: Any, default: Any = ..., **options: Any) -> Contract:
    """A contract of the field v; `options` are those of Contract."""
    return Contract(create_model("Made", __config__=CONTRACT_CONFIG, v=(kind, default)), **options)


def value(made: Contract, text: str) -> Any:
    """What the contract makes of a JSON text in the field."""
    decoded = made.decode(None, b'{"v":%s}' % text.encode())
    assert isinstance(decoded, list), decoded
    return decoded[0]


def reason(made: Contract, text: str) -> str:
    """Why the contract rejects a JSON text in the field."""
    decoded = made.decode(None, b'{"v":%s}' % text.encode())
    assert isinstance(decoded, Rejection), decoded
    assert decoded.json_path.startswith("$.v")
    return decoded.reason
