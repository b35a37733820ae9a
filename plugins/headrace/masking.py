"""The secrets of this process, and texts without them: a quoted error may end up in a log, a table or a page."""

import html
import json
import re
import shlex
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus, urlsplit

from headrace.escaping import visible, visible_json

MASK = "***"
LENGTH_MIN = 5  # a shorter one would mask parts of words; Airflow's masker has the same limit
BASE64_MIN = 6  # of the part that does not depend on the neighbouring bytes

_secrets: set[str] = set()
_reading = threading.Lock()
_unread: list[str] = []  # addresses not yet searched for secrets: that imports a driver
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|credential|scram_\w+_key", re.IGNORECASE)
# a possible password in an address that no driver reads: up to the last @, or the value of an option named password
_USER_INFO = re.compile(r"//[^/@:]*:(.*)@", re.DOTALL)
_ASSIGNED = re.compile(r"(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^\s&#;]+))", re.DOTALL)

_QUOTES = "'\""

# The notations in which a secret may be quoted. They are combined in pairs (a JSON string in a page, a repr in a log),
# and none undoes another.
_WRITTEN: tuple[Callable[[str], str], ...] = (
    lambda text: " ".join(text.split()),  # one line, as in errors
    visible,
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: repr(text.encode(errors="surrogatepass"))[2:-1],
    lambda text: repr(text + _QUOTES)[1:-4],  # as repr writes it beside both kinds of quotes
    lambda text: ascii(text + _QUOTES)[1:-4],
    lambda text: repr((text + _QUOTES).encode(errors="surrogatepass"))[2:-4],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1].replace("/", "\\/"),
    lambda text: visible_json(json.dumps(text, ensure_ascii=False))[1:-1],
    lambda text: _percent(text, quote, ""),
    lambda text: re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), _percent(text, quote, "")),
    lambda text: _percent(text, quote, "/"),
    lambda text: _percent(text, quote, " +"),  # SQLAlchemy's
    lambda text: _percent(text, quote, "!*'()"),
    lambda text: _percent(text, quote_plus, ""),
    lambda text: shlex.quote(text)[1:-1] if shlex.quote(text) != text else text,
    lambda text: text.replace("'", "'\\''"),
    lambda text: re.sub(r"([\\'])", r"\\\1", text),  # libpq's connection strings
    lambda text: re.sub(r"([\\:])", r"\\\1", text),  # libpq's password files
    lambda text: re.sub(r"([\\\"])", r"\\\1", text),  # JAAS, XML's and Java's strings
    lambda text: text.replace("'", "''"),  # SQL
    lambda text: html.escape(text),
    lambda text: html.escape(text, quote=False),
    lambda text: html.escape(text, quote=False).replace('"', "&quot;"),
    lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),  # MarkupSafe's
)


def remember(secret: str | None) -> None:
    """Mask this from now on, in all notations of `_WRITTEN` and in base64, alone or within a longer text."""
    if secret is None or len(secret) < LENGTH_MIN:
        return
    once = {secret} | {written(secret) for written in _WRITTEN}
    forms = once | {written(form) for form in once for written in _WRITTEN} | set(_base64(secret))
    _secrets.update(form for form in forms if len(form) >= LENGTH_MIN)


def remember_address(address: str | None) -> None:
    """Mask the secrets of a URL or of a libpq connection string."""
    if address and holds_secret(address):
        _unread.append(address)


def holds_secret(address: str) -> bool:
    """Whether there may be a secret in a URL or in a libpq connection string."""
    return any(_candidates(address))


def mask(text: str) -> str:
    """The text with every known secret replaced by three stars."""
    _read_addresses()
    if len(text) < LENGTH_MIN:
        return text
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def known() -> frozenset[str]:
    """All masked texts, for another masker."""
    _read_addresses()
    return frozenset(_secrets)


def is_secret(name: str) -> bool:
    """Whether an option of an address holds a secret, by its name; the path of a password file is none."""
    return _SECRET_NAME.search(name) is not None and name.lower() != "passfile"


def secrets_of(address: str) -> set[str]:
    """The secrets in an address as its driver reads it; without a driver that reads it, all possible secrets."""
    with suppress(Exception):
        return _redis_secrets(address) if _scheme(address) in ("redis", "rediss", "unix") else _libpq_secrets(address)
    return {address, *_likely_secrets(address)}


def _read_addresses() -> None:
    if not _unread:
        return
    with _reading:
        while _unread:
            for secret in secrets_of(_unread[-1]) | _likely_secrets(_unread[-1]):
                remember(secret)
            _unread.pop()


def _libpq_secrets(dsn: str) -> set[str]:
    from psycopg.conninfo import conninfo_to_dict

    found = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value}
    return {value for name, value in found.items() if is_secret(name)}


def _redis_secrets(url: str) -> set[str]:
    from redis.connection import parse_url

    found: dict[str, object] = parse_url(url)
    return {str(value) for name, value in found.items() if value and is_secret(name)}


def _likely_secrets(address: str) -> set[str]:
    """The possible secrets in an address for any reader: as written, and with its escapes decoded."""
    return {form for found in _candidates(address) for form in (found, unquote(found), unquote_plus(found)) if found}


def _candidates(address: str) -> Iterator[str]:
    if found := _USER_INFO.search(address):
        yield found[1]
        if re.search("[@/?#]", found[1]):  # a driver may read a part of it as a host, a port or a database
            yield from re.split("[@/?#:]", found[1])
    with suppress(ValueError):
        parts = urlsplit(address)
        yield parts.password or ""
        yield from (value for name, value in parse_qsl(parts.query) if is_secret(name))
    for name, single, double, bare in _ASSIGNED.findall(address):
        if is_secret(name):
            yield bare or single or double
            yield re.sub(r"\\(.)", r"\1", bare or single or double)


def _scheme(address: str) -> str:
    return address.partition("://")[0].strip().lower() if "://" in address else ""


def _percent(text: str, quoted: Callable[..., str], safe: str) -> str:
    return quoted(text, safe=safe, errors="surrogatepass")


def _base64(secret: str) -> Iterator[str]:
    """The secret's base64 at each of the three alignments, without the characters that depend on its neighbours."""
    raw = secret.encode(errors="surrogatepass")
    for before in range(3):
        end = len(raw) + before - (len(raw) + before) % 3
        padded = (b"\0" * before + raw)[:end]
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(padded).decode()[(0, 2, 3)[before] :]
            if len(text) >= BASE64_MIN:
                yield text
