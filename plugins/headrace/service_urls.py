"""Addresses that may hold a secret: parsed by their drivers, never quoted in errors, and shown without the secret."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from headrace.exceptions import SettingError
from headrace.masking import is_secret
from headrace.optional import needs

_ESCAPES = "in a password @ is written %40, : %3A, / %2F, ? %3F, # %23 and % %25"
# libpq ends the password at the first @ and the hosts at the first /: the rest would be read as a host or a name
_SECOND_AT = re.compile(r"postgres(?:ql)?://(?:[^/?@]*@[^/?]*@|[^/?@]*/[^?]*@)")


def libpq_parameters(dsn: str, variable: str) -> dict[str, str]:
    """The parameters of a libpq connection string, in either form; SettingError if it cannot be parsed."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        if _SECOND_AT.match(dsn):
            raise ValueError
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except (psycopg.Error, ValueError):  # libpq's message quotes the string and its password
        raise SettingError(
            "postgres: the DSN cannot be read; expected a libpq connection string such as "
            f"postgresql://user@host:5432/database; {_ESCAPES}; correct {variable}"
        ) from None


def libpq_dsn(parameters: Mapping[str, str]) -> str:
    """The connection string of these parameters."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **dict[str, Any](sorted(parameters.items())))


def redis_options(url: str) -> dict[str, Any]:
    """A Redis URL as redis-py's options; SettingError if it cannot be parsed or is ambiguous."""
    with needs("redis"):
        from redis.connection import parse_url

    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and (parts.fragment or "@" in parts.path or "@" in parts.query.partition("=")[0]):
            raise ValueError  # a password that ends early would be taken for a port
        found: dict[str, Any] = parse_url(url)
    except ValueError:
        raise SettingError(
            "redis: the URL cannot be read; expected redis://, rediss:// or unix:// with user:password@host:port/db; "
            f"{_ESCAPES}; correct HEADRACE_REDIS_URL"
        ) from None
    return found


def without_secret(name: str, address: str) -> str:
    """A setting's address without its secrets; that of Postgres as libpq's parameters."""
    if name != "redis_url":
        parameters = libpq_parameters(address, f"HEADRACE_{name.upper()}")
        return libpq_dsn({each: value for each, value in parameters.items() if not is_secret(each)})
    redis_options(address)
    parts = urlsplit(address.strip())
    user_info, at, hosts = parts.netloc.rpartition("@")
    user = unquote(user_info.partition(":")[0])
    netloc = f"{quote(user, safe='')}{at}{hosts}" if user else hosts
    options = [option.partition("=") for option in parts.query.split("&") if option]
    query = "&".join(f"{key}{sign}{value}" for key, sign, value in options if not is_secret(unquote(key)))
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def libpq_variables(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters as libpq's environment variables: dbt's profile names only a few of them.

    Without PGSSLMODE a dbt that is started by hand would accept any server.
    """
    if not parameters:
        return {}
    from psycopg import pq

    variables = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
    return {variable.decode(): value for name, value in parameters.items() if (variable := variables.get(name))}
