"""The extras of Airflow's connections for libpq, Redis and the registry: used, ignored on purpose, or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from psycopg import pq
from psycopg.conninfo import make_conninfo

from headrace import masking
from headrace.exceptions import SettingError
from headrace.private_files import open_regular
from headrace.settings import USER_INFO, Settings

# the Postgres provider's own, and those of every SQL hook: they choose cursors and SQLAlchemy's URL, which are not used
IGNORED = frozenset(
    {
        "cursor", "sqlalchemy_scheme", "sqlalchemy_query", "aws_conn_id", "azure_conn_id", "cluster-identifier",
        "workgroup-name", "placeholder", "insert_statement_format", "replace_statement_format", "escape_word_format",
        "escape_column_names",
    }
)  # fmt: skip
# passwords that expire within minutes, which neither dbt nor a follower could renew
TOKENS = ("iam", "redshift", "redshift-serverless")
FIELDS = {"host": "host", "port": "port", "user": "login", "password": "password", "dbname": "schema"}

REDIS_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
REDIS_FILES = REDIS_TLS[:3]
REGISTRY = ("url", "token", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")
EMPTY = ("", "{}", "null")
WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class AirflowConnection(Protocol):
    """The attributes of a connection that are read. extra: JSON; conn_type: of a URI, its scheme."""

    conn_type: str | None
    extra: str | None
    host: str | None
    port: int | None
    login: str | None
    password: str | None
    schema: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The connection's extra, decoded from JSON."""


def decoded(name: str, connection: AirflowConnection) -> dict[str, Any]:
    """The connection's extra; raises SettingError where it is no JSON object, which Airflow takes for an empty one."""
    extra = connection.extra_dejson or {}
    if not isinstance(extra, dict) or (not extra and "".join((connection.extra or "").split()) not in EMPTY):
        raise SettingError(
            f'{name}: found an extra that is no JSON object, expected names and values such as {{"name": "value"}}; '
            "correct it"
        )
    return extra


def libpq_parameters(name: str, connection: AirflowConnection) -> dict[str, str]:
    """A Postgres connection as libpq's parameters.

    Raises SettingError for an extra that libpq does not know, or that contradicts the connection's own field.
    """
    given = {parameter: getattr(connection, field) for parameter, field in FIELDS.items()}
    parameters = {parameter: str(value) for parameter, value in given.items() if value not in (None, "")}
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for extra, value in decoded(name, connection).items():
        if extra in TOKENS:
            if _flag(name, extra, value):
                raise SettingError(
                    f"{name}: found {extra!r} in its extra, expected a password or a client certificate: a token "
                    "expires while a follower or dbt still needs it; remove it"
                )
            continue
        if extra in IGNORED or value is None or value == "":  # an empty field of the form
            continue
        if extra not in known:
            raise SettingError(
                f"{name}: found {extra!r} in its extra, expected parameters of libpq such as sslmode or sslrootcert; "
                "remove it or correct its name"
            )
        if not isinstance(value, str | int | float):
            raise SettingError(f"{name}: {extra}: found {type(value).__name__}, expected text or a number; correct it")
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if parameters.setdefault(extra, text) != text:
            raise SettingError(
                f"{name}: found {extra!r} in its extra and another value in its field {FIELDS.get(extra, extra)}, "
                "expected one of them; remove it"
            )
    for option, text in parameters.items():
        masking.remember(text if masking.is_secret(option) else None)
    return parameters


def dsn(name: str, connection: AirflowConnection) -> str:
    """A Postgres connection as libpq's connection string; raises SettingError as `libpq_parameters` does."""
    return make_conninfo("", **dict[str, Any](libpq_parameters(name, connection)))


def registry_settings(name: str, connection: AirflowConnection, settings: Settings) -> Settings:
    """The settings with the registry of a connection; raises SettingError for an unknown extra, or none that names it.

    Whole: nothing of the registry in `settings` is kept, so that no password is sent to another server.
    """
    extra = {option: value for option, value in decoded(name, connection).items() if value not in (None, "")}
    if unknown := sorted(extra.keys() - set(REGISTRY)):
        raise SettingError(
            f"{name}: found {unknown[0]!r} in its extra, expected some of {', '.join(REGISTRY)}; remove it"
        )
    if "url" not in extra:
        raise SettingError(f"{name}: found no url in its extra, expected http(s)://host:port; add it")
    for option, value in extra.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SettingError(f"{name}: {option}: found {type(value).__name__}, expected text; correct it")
    if USER_INFO.search(str(extra["url"])):  # errors, the page and logs show the URL
        raise SettingError(
            f"{name}: found a user in the url of its extra, expected http(s)://host:port alone; move user and password "
            "to the connection's own fields"
        )
    texts = {option: str(value) for option, value in extra.items()}
    values: dict[str, Any] = {f"registry_{option}": texts.get(option) for option in REGISTRY}
    for option in ("registry_ssl_cafile", "registry_ssl_certfile", "registry_ssl_keyfile"):
        values[option] = Path(values[option]) if values[option] else None
    made = replace(
        settings, registry_user=connection.login or None, registry_password=connection.password or None, **values
    )
    made.mask_secrets()
    return made


def redis_url(name: str, connection: AirflowConnection) -> str:
    """A Redis connection as redis-py's URL: of TLS by rediss:// or the extra ssl; raises SettingError for others."""
    extra = {option: value for option, value in decoded(name, connection).items() if value not in (None, "")}
    if unknown := sorted(extra.keys() - {"db", "ssl", *REDIS_TLS}):
        raise SettingError(
            f"{name}: found {unknown[0]!r} in its extra, expected some of db, ssl, {', '.join(REDIS_TLS)}; remove it"
        )
    host = (connection.host or "").strip("[]")
    if not host or any(sign in host for sign in "/@?# "):
        masking.remember_address(connection.host)
        raise SettingError(f"{name}: found host {connection.host!r}, expected a name or an address alone; correct it")
    database = str(extra.get("db", connection.schema or 0))
    if connection.schema and database != connection.schema:
        raise SettingError(f"{name}: found 'db' in its extra and another value in its field schema; remove one of them")
    if not database.isascii() or not database.isdigit():
        raise SettingError(f"{name}: db: found {database!r}, expected a number; correct it")
    is_rediss = connection.conn_type == "rediss"  # AIRFLOW_CONN_HEADRACE_REDIS=rediss://...
    is_tls = _flag(name, "ssl", extra.get("ssl", is_rediss))
    if is_rediss and not is_tls:
        raise SettingError(f'{name}: found rediss:// and "ssl": false in its extra, expected one of them; remove it')
    options = {option: str(extra[option]) for option in REDIS_TLS if option in extra}
    if options and not is_rediss and "ssl" not in extra:
        raise SettingError(
            f'{name}: found {next(iter(options))!r} in its extra, expected "ssl": true beside it; add it'
        )
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = str(_flag(name, "ssl_check_hostname", extra["ssl_check_hostname"]))
    if options.get("ssl_cert_reqs", "none") not in ("none", "optional", "required"):
        found = options["ssl_cert_reqs"]
        raise SettingError(f"{name}: ssl_cert_reqs: found {found!r}, expected none, optional or required; correct it")
    for option in REDIS_FILES if is_tls else ():
        if option in options:
            _check_readable(f"{name}: {option}", Path(options[option]))
    credentials = ""
    if connection.login or connection.password:
        credentials = f"{quote(connection.login or '', safe='')}:{quote(connection.password or '', safe='')}@"
    address = f"[{host}]" if ":" in host else host
    query = f"?{urlencode(options)}" if is_tls and options else ""
    scheme = "rediss" if is_tls else "redis"
    return f"{scheme}://{credentials}{address}:{connection.port or 6379}/{database}{query}"


def _flag(name: str, option: str, value: Any) -> bool:
    """A flag as JSON or as text: Airflow's form stores "false" as text, which is true in Python."""
    found = value if isinstance(value, bool) else WORDS.get(str(value).strip().lower())
    if found is None:
        raise SettingError(f"{name}: {option}: found {value!r}, expected true or false; correct it")
    return found


def _check_readable(where: str, path: Path) -> None:
    try:
        open_regular(path).close()
    except OSError as error:
        raise SettingError(
            f"{where}: {path} cannot be read: {error.strerror}; name a file that this user may read"
        ) from error
