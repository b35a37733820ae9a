"""The addresses of the services, given or local, in the forms that Headrace, dbt, psql and Airflow read.

They contain no secrets: a password is passed as the name of the file that holds it.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from headrace.exceptions import SettingError
from headrace.local.home import write_file
from headrace.local.postgres_roles import passfile as local_passfile
from headrace.local.process import Service
from headrace.masking import holds_secret, is_secret
from headrace.private_files import make_folder
from headrace.service_urls import libpq_variables
from headrace.settings import PREFIX, SECRETS, Settings, builder_dsn, read_services

GIVEN = {
    "postgres": "postgres_dsn",
    "kafka": "kafka_bootstrap_servers",
    "airflow": "airflow_url",
    "redis": "redis_url",
    "registry": "registry_url",
}


_OWN_DSN = re.compile(
    r"postgresql://headrace@127\.0\.0\.1:(?P<port>[0-9]{1,5})/(?P<dbname>[\w%-]+)\?passfile=(?P<passfile>[^&#?=]+)"
)


def given(settings: Settings, service: str) -> str | None:
    """The address of a service that is not local; None for the local one.

    An address that equals the local one (`eval "$(headrace env)"`) means the local one. So does a DSN with the local
    server's password file: its port may be that of an earlier start.
    """
    address: str | None = getattr(settings, GIVEN[service])
    if address is None or address == read_services(settings.home).get(service, {}).get("address"):
        return None
    local = str(local_passfile(settings.home.resolve()))
    if service == "postgres" and dsn_parameters(address).get("passfile") == local:
        return None
    return address


def address(settings: Settings, service: str) -> str | None:
    """The address of a service, given or local; None if there is neither. It may hold a password."""
    remembered = read_services(settings.home).get(service, {}).get("address")
    if service == "postgres" and settings.postgres_dsn is not None:
        return (
            settings.require_postgres_dsn()
        )  # the DSN of drains, also if it names another database of the local server
    return given(settings, service) or (str(remembered) if remembered else None)


def environment(settings: Settings) -> dict[str, str]:
    """The variables of `headrace env`, by which Headrace, dbt and libpq find the services.

    A service that is neither given nor was ever started is left out. The password of a given DSN goes to
    HEADRACE_HOME/pgpass (mode 0600), and the DSN that is returned names that file; so it is with other secrets, each in
    a file that a variable with _FILE behind its name names. An address is there without its secrets as well.
    """
    home = settings.home.resolve()
    values = {"HEADRACE_HOME": str(home)}
    if dsn := address(settings, "postgres"):
        values |= _postgres_environment(home, dsn, settings.dbt_dsn)
        if settings.dbt_dsn is None and (builders := builder_dsn(dsn, read_services(settings.home))):
            values["HEADRACE_DBT_USER"] = dsn_parameters(builders)["user"]
        values["HEADRACE_DBT_THREADS"] = str(settings.dbt_threads)
        values |= settings.thresholds
    if servers := address(settings, "kafka"):
        values["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"] = servers
        values |= _kafka_environment(home, settings)
    if redis_url := address(settings, "redis"):
        values |= _redis_environment(home, redis_url)
    if url := address(settings, "registry"):
        values |= _registry_environment(home, settings, url)
    if url := address(settings, "airflow"):
        values["HEADRACE_AIRFLOW_URL"] = url
        values["HEADRACE_AIRFLOW_USER"] = settings.airflow_user
        values["HEADRACE_AIRFLOW_PASSWORD_FILE"] = str(airflow_password_file(settings))
    return values


def airflow_password_file(settings: Settings) -> Path:
    """The file with the password of Airflow's user in plain text."""
    return settings.airflow_password_file or settings.home.resolve() / "airflow" / "password"


def dsn_parameters(dsn: str) -> dict[str, str]:
    """A libpq connection string, in either form, as libpq's parameters; SettingError when it is neither.

    Our own form is read without psycopg, whose import takes 0.2 s of every command.
    """
    if (ours := _OWN_DSN.fullmatch(dsn)) and unquote(ours["passfile"]).isprintable():
        read = {"user": "headrace", "host": "127.0.0.1", "port": ours["port"]}
        return read | {"dbname": unquote(ours["dbname"]), "passfile": unquote(ours["passfile"])}
    from headrace.service_urls import libpq_parameters

    return libpq_parameters(dsn, "HEADRACE_POSTGRES_DSN")


def _postgres_environment(home: Path, dsn: str, dbt_dsn: str | None) -> dict[str, str]:
    values, parameters = _without_secrets(home, "postgres_dsn", dsn, home / "pgpass")
    if dbt_dsn is not None:
        builders, parameters = _without_secrets(home, "dbt_dsn", dbt_dsn, home / "pgpass-dbt")
        values |= builders
    found = {
        "HEADRACE_DBT_HOST": parameters.pop("host", "localhost").split(",")[0],
        "HEADRACE_DBT_PORT": parameters.pop("port", "5432").split(",")[0],
        "HEADRACE_DBT_USER": parameters.get("user"),
        "HEADRACE_DBT_DBNAME": parameters.pop("dbname", None) or parameters.get("user"),
        "PGPASSFILE": parameters.pop("passfile", None),
    }
    parameters.pop("user", None)
    values["PGCLIENTENCODING"] = "UTF8"  # for dbt that is run directly: its profile has no such option
    return values | {name: value for name, value in found.items() if value} | libpq_variables(parameters)


def _kafka_environment(home: Path, settings: Settings) -> dict[str, str]:
    """The given settings of encryption and authentication."""
    return _given(home, settings, ("kafka_security", "kafka_sasl", "kafka_ssl"))


def _registry_environment(home: Path, settings: Settings, url: str) -> dict[str, str]:
    """A given registry; a local one only where it runs: not everybody needs it, and it takes 250 MB."""
    if given(settings, "registry") is None and not Service(settings.home, "registry").pid():
        return {}
    credentials = ("registry_user", "registry_password", "registry_token", "registry_ssl")
    return {"HEADRACE_REGISTRY_URL": url} | _given(home, settings, credentials)


def _given(home: Path, settings: Settings, prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables of the settings of these names that are given; secrets by files of ours."""
    values: dict[str, str] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not field.name.startswith(prefixes) or value in (None, field.default):
            continue
        if field.name in SECRETS:
            values |= _by_file(home, field.name, value)
        else:
            values[PREFIX + field.name.upper()] = str(value)
    return values


def _by_file(home: Path, name: str, secret: str) -> dict[str, str]:
    """The variable that names a file of mode 0600 with this secret."""
    path = home / name
    if not path.exists() or path.read_text() != secret:
        make_folder(home)
        write_file(path, secret)
    return {f"{PREFIX}{name.upper()}_FILE": str(path)}


def _without_secrets(home: Path, name: str, dsn: str, passfile: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of a DSN whose password, if it had one, is in that file; and its parameters without secrets.

    libpq reads no other secret from a file of its own: one that has such is whole in a file of ours, too.
    """
    parameters = dsn_parameters(dsn)
    password = parameters.pop("password", None)
    secrets = {each: value for each, value in parameters.items() if is_secret(each)}
    if password is None and not secrets:
        return {PREFIX + name.upper(): dsn}, parameters
    from headrace.service_urls import libpq_dsn

    if password is not None:
        _keep_password(passfile, parameters, password)
        parameters["passfile"] = str(passfile)
    values = _by_file(home, name, libpq_dsn(parameters)) if secrets else {}
    parameters = {each: value for each, value in parameters.items() if each not in secrets}
    return values | {PREFIX + name.upper(): libpq_dsn(parameters)}, parameters


def _redis_environment(home: Path, url: str) -> dict[str, str]:
    if not holds_secret(url):
        return {"HEADRACE_REDIS_URL": url}
    from headrace.service_urls import without_secret

    values = {"HEADRACE_REDIS_URL": without_secret("redis_url", url)}  # a URL that cannot be read ends here
    return values | _by_file(home, "redis_url", url)


def _keep_password(path: Path, parameters: Mapping[str, str], password: str) -> None:
    """Write a given DSN's password to a file that libpq reads, for its own hosts and user only."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(":", "\\:")

    if any(sign in password for sign in "\r\n\0"):
        raise SettingError(
            "HEADRACE_POSTGRES_DSN: found a line break in the password, expected one line: no password file can hold "
            "it; give the role another password"
        )
    hosts = [host or "localhost" for host in parameters.get("host", "").split(",")]
    hosts += [address for address in parameters.get("hostaddr", "").split(",") if address]
    if any(host.startswith("/") for host in hosts):
        hosts.append("localhost")  # libpq's name for the socket in its default directory
    user = escaped(parameters["user"]) if "user" in parameters else "*"
    text = "".join(f"{escaped(host)}:*:*:{user}:{escaped(password)}\n" for host in dict.fromkeys(hosts))
    if not path.exists() or path.read_text() != text:
        make_folder(path.parent)
        write_file(path, text)
