"""Secrets of this process, and texts without them: what an error quotes may end in a log, a table or a page."""

import json
import re
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
LENGTH_MIN = 5  # a shorter one would blot out words; Airflow's masker has the same limit

_secrets: set[str] = set()
_PASSWORD = re.compile(r"password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s&]+))")


def remember(secret: str | None) -> None:
    """Mask this from now on, also as it looks inside a URL or a JSON string."""
    if secret is not None and len(secret) >= LENGTH_MIN:
        _secrets.update((secret, quote(secret, safe=""), json.dumps(secret)[1:-1]))


def remember_address(address: str | None) -> None:
    """Mask the password of a URL or of a libpq connection string, in either form."""
    if address is None:
        return
    try:
        password = urlsplit(address).password
    except ValueError:  # nobody can tell where the password is
        remember(address)
        return
    if password is not None:
        remember(unquote(password))
    for quoted, bare in _PASSWORD.findall(address):
        remember(re.sub(r"\\(.)", r"\1", quoted) if quoted else unquote(bare))


def mask(text: str) -> str:
    """The text with every known secret replaced by three stars."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def known() -> frozenset[str]:
    """All that is masked, to hand it to another masker."""
    return frozenset(_secrets)
