"""Settings: the HEADRACE_* environment variables, their types and defaults.

An unknown variable is an error, so that a misspelt one is found at the start. Without an address a service is the
local one: `headrace up` writes its addresses to HEADRACE_HOME/services.json.

A setting that may hold a secret can be read from a file: the same variable with the suffix _FILE names it, which suits
the secrets that Docker and Kubernetes mount.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from headrace import masking
from headrace.command import Command
from headrace.exceptions import SettingError
from headrace.private_files import check_home
from headrace.project import PATHS, PROJECT, project_paths
from headrace.setting_values import (
    ADDRESSES,
    Count,
    is_the_same_address,
    parse_names,
    parse_number,
    parse_value,
    read_secret,
    threshold_variables,
)
from headrace.setting_values import KPIS as KPIS  # for declarations
from headrace.setting_values import PREFIX as PREFIX
from headrace.setting_values import SECRET_BYTES_MAX as SECRET_BYTES_MAX

LogFormat = Literal["text", "json"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"]
_PASSWORDS = ("kafka_sasl_password", "kafka_ssl_password", "registry_password", "registry_ssl_password")
SECRETS = (*ADDRESSES, *_PASSWORDS, "registry_token", "masking_key")
KafkaClient = Literal["kafka-python", "confluent"]
LOCAL_DSN = re.compile(
    r"postgresql://(?P<user>headrace)@127\.0\.0\.1:(?P<port>\d+)/[^?]*\?passfile=(?P<passfile>[^&]*)"
)
_KPIS = "HEADRACE_TELEMETRY_KPIS"
USER_INFO = re.compile(r"//[^/]*@")
ZONES = ("zone-a", "zone-b", "zone-c", "zone-d")  # of telemetry; HEADRACE_TELEMETRY_ZONES adds others
COMPOSED = ("services", "added_thresholds")  # fields without a variable of the same name
ROOT = PROJECT  # the checkout, or the project that the current folder belongs to


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process.

    An attribute has the name of its variable in lower case, without the prefix; its comment states the meaning and the
    default.
    """

    project: Path = PROJECT  # the folder of datasets/, dbt/ and data-files/. Defaults to headrace.project's
    home: Path = PATHS["home"]  # data, logs and pid files of local services. Defaults to .headrace/
    # a libpq connection string. Defaults to the local server
    postgres_dsn: str | None = field(default=None, repr=False)
    # the DSN for builds, of a member of headrace_dbt. Defaults to HEADRACE_POSTGRES_DSN
    dbt_dsn: str | None = field(default=None, repr=False)
    kafka_bootstrap_servers: str | None = None  # host:port[,host:port]. Defaults to the local broker
    kafka_client: KafkaClient = "kafka-python"  # confluent needs the extra. Defaults to kafka-python
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"  # Defaults to PLAINTEXT
    kafka_sasl_mechanism: SaslMechanism | None = None  # Defaults to none
    kafka_sasl_username: str | None = None  # of OAUTHBEARER, the client's id
    kafka_sasl_password: str | None = field(default=None, repr=False)  # of OAUTHBEARER, the client's secret
    kafka_sasl_oauth_token_url: str | None = None  # https://...: the endpoint that issues tokens. No default
    kafka_sasl_oauth_scope: str | None = None  # of the tokens. Defaults to none
    kafka_sasl_oauth_cafile: Path | None = None  # PEM: CA of that endpoint. Defaults to the system's
    kafka_ssl_cafile: Path | None = None  # PEM: CA of the brokers. Defaults to the system's
    kafka_ssl_certfile: Path | None = None  # PEM: client certificate
    kafka_ssl_keyfile: Path | None = None  # PEM: its key. Defaults to the certificate's file
    kafka_ssl_password: str | None = field(default=None, repr=False)  # of the key, if it is encrypted
    redis_url: str | None = field(default=None, repr=False)  # redis://host:port/db. Defaults to the local server
    masking_key: str | None = field(default=None, repr=False)  # of Masked("hmac"), 16 characters or more. No default
    registry_url: str | None = None  # http(s)://host:port[/path][,...] of a schema registry. Defaults to the local one
    registry_user: str | None = None  # of basic authentication. No default
    registry_password: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)  # a bearer's, in the place of user and password
    registry_ssl_cafile: Path | None = None  # PEM: who signs the registry's certificate. Defaults to certifi's
    registry_ssl_certfile: Path | None = None  # PEM: a client's certificate, where the registry asks for one
    registry_ssl_keyfile: Path | None = None  # PEM: its key. Defaults to the certificate's file
    registry_ssl_password: str | None = field(default=None, repr=False)  # of the key, if it is encrypted
    airflow_url: str | None = None  # Defaults to the local Airflow
    airflow_user: str = "admin"  # Defaults to admin
    airflow_password_file: Path | None = None  # Defaults to HEADRACE_HOME/airflow/password
    postgres_port: int | None = None  # of the local server. Defaults to 5432, or a free port
    kafka_port: int | None = None  # of the local broker. Defaults to 9092, or a free port
    airflow_port: int | None = None  # of the local Airflow. Defaults to 8080, or a free port
    redis_port: int | None = None  # of the local Valkey. Defaults to 6379, or a free port
    registry_port: int | None = None  # of the local registry. Defaults to 8085, or a free port
    datasets_dir: Path = PATHS["datasets_dir"]  # the declarations. Defaults to datasets/
    dbt_dir: Path = PATHS["dbt_dir"]  # the dbt project. Defaults to dbt/
    # the folder that paths of file sources are relative to. Defaults to data-files/
    data_dir: Path = PATHS["data_dir"]
    batch_rows: int = 20_000  # a batch ends at this many records. Defaults to 20000
    batch_bytes: int = 16 * 1024 * 1024  # or at this many bytes. Defaults to 16 MiB
    # size limit of a record (key, value and headers), at least 2 * max_value_bytes of its dataset. Defaults to 32 MiB
    record_bytes_max: int = 32 * 1024 * 1024
    # size limit of an unpacked batch or file, at least 200 times its packed size. Defaults to 64 MiB
    unpacked_bytes_max: int = 64 * 1024 * 1024
    drain_parallel_max: int = 4  # mapped drain tasks per dataset at most. Defaults to 4
    # one task drains all partitions up to this many offsets: a mapped task costs half a second. Defaults to 500000
    drain_parallel_lag: Count = 500_000
    lock_timeout_ms: int = 5_000  # how long a statement waits for another transaction's lock. Defaults to 5000
    stuck_after_ms: int = 10_000  # a drain that waits for its client this long may be ended. Defaults to 10000
    max_retries: Count = 3  # retries after a service failed, after 1 s, 2 s, ... Defaults to 3
    log_format: LogFormat = "text"  # json: one object per line, also for batches and drains. Defaults to text
    threshold_temperature: Decimal = Decimal(80)  # a reading above it is degraded. Defaults to 80
    threshold_humidity: Decimal = Decimal(70)  # the same. Defaults to 70
    threshold_pressure: Decimal = Decimal(1050)  # the same. Defaults to 1050
    threshold_vibration: Decimal = Decimal(5)  # the same. Defaults to 5
    telemetry_zones: tuple[str, ...] = ()  # comma-separated, in addition to ZONES. Defaults to none
    telemetry_kpis: tuple[str, ...] = ()  # comma-separated, in addition to KPIS. Defaults to none
    # HEADRACE_THRESHOLD_<KPI> of telemetry_kpis, by the variable's name. Defaults to none
    added_thresholds: Mapping[str, Decimal] = field(default_factory=dict)
    dbt_host: str | None = None  # read by dbt/profiles.yml; `headrace env` derives these from the DSN
    dbt_port: int | None = None
    dbt_user: str | None = None
    dbt_dbname: str | None = None
    dbt_threads: int = 2  # dbt's threads. Defaults to 2
    services: Mapping[str, Any] = field(default_factory=dict, repr=False)  # HEADRACE_HOME/services.json as read

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings of this process.

        Raises SettingError for an unknown HEADRACE_ variable or a value of the wrong kind.
        """
        environ = os.environ if environ is None else environ
        kinds = {name: kind for name, kind in cls.__annotations__.items() if name not in COMPOSED}
        values: dict[str, Any] = {}
        thresholds = threshold_variables(parse_names(_KPIS, environ.get(_KPIS, "")))
        added = thresholds.keys() - {PREFIX + name.upper() for name in kinds}
        added_thresholds: dict[str, Decimal] = {}
        for variable in sorted(environ):
            if not variable.startswith(PREFIX):
                continue
            name = variable.removeprefix(PREFIX).lower()
            text = environ[variable]
            if variable in added:
                if text:
                    added_thresholds[variable] = parse_number(variable, text)
                continue
            if name.endswith("_file") and (secret := name.removesuffix("_file")) in SECRETS:
                beside = text and environ.get(variable.removesuffix("_FILE"), "")
                name, text = secret, text and read_secret(variable, text)
                if beside and not is_the_same_address(secret, beside, text):
                    raise SettingError(
                        f"{variable}: found {variable.removesuffix('_FILE')} too, expected one of them, or the same "
                        "address without its secrets"
                    )
            if name not in kinds or variable != variable.upper():
                known = [PREFIX + known.upper() for known in (*kinds, *(f"{secret}_file" for secret in SECRETS))]
                known += sorted(added)
                expected = get_close_matches(variable.upper(), known, n=2) or known
                raise SettingError(
                    f"{variable}: not a setting; expected one of {', '.join(expected)}; unset it or correct its name"
                )
            if text:
                values[name] = parse_value(variable, text.strip() if name in ADDRESSES else text, kinds[name])
        for service in ("AIRFLOW", "REGISTRY"):
            if USER_INFO.search(values.get(f"{service.lower()}_url", "")):
                raise SettingError(
                    f"HEADRACE_{service}_URL: found a user in it, expected http://host:port alone; name the user in "
                    f"HEADRACE_{service}_USER and the password's file in HEADRACE_{service}_PASSWORD_FILE"
                )
        values = {**project_paths(values.get("project", PROJECT)), **values}
        home = values["home"]
        check_home(home)
        settings = cls(**values, added_thresholds=added_thresholds, services=read_services(home))
        settings.mask_secrets()
        masking.remember(environ.get("PGPASSWORD"))  # libpq's
        return settings

    def mask_secrets(self) -> None:
        """Mask the secrets in all later output of this process."""
        for name in SECRETS:
            (masking.remember_address if name in ADDRESSES else masking.remember)(getattr(self, name))

    def require_postgres_dsn(self) -> str:
        """The DSN of Postgres, given or local; raises SettingError without one.

        A given DSN of the local server, as `headrace env` prints it, gets the server's current port.
        """
        dsn = self._require("postgres", self.postgres_dsn, "HEADRACE_POSTGRES_DSN")
        given, local = (
            LOCAL_DSN.fullmatch(text) for text in (dsn, self.services.get("postgres", {}).get("address", ""))
        )
        if given and local and given["passfile"] == local["passfile"]:
            return dsn[: given.start("port")] + local["port"] + dsn[given.end("port") :]
        return dsn

    def require_dbt_dsn(self) -> str:
        """The DSN for builds; raises SettingError without one.

        HEADRACE_DBT_DSN; else, for the local server, that of its login for builds; else the DSN of Postgres.
        """
        dsn = self.dbt_dsn or self.require_postgres_dsn()
        return dsn if self.dbt_dsn else builder_dsn(dsn, self.services) or dsn

    def require_kafka_bootstrap_servers(self) -> str:
        """The bootstrap servers, given or local; raises SettingError without any."""
        return self._require("kafka", self.kafka_bootstrap_servers, "HEADRACE_KAFKA_BOOTSTRAP_SERVERS")

    def require_redis_url(self) -> str:
        """The Redis server's URL, given or local; raises SettingError without one."""
        return self._require("redis", self.redis_url, "HEADRACE_REDIS_URL")

    def require_registry_url(self) -> str:
        """The schema registry's URL, given or local; raises SettingError when there is neither."""
        return self._require("registry", self.registry_url, "HEADRACE_REGISTRY_URL")

    def require_airflow_url(self) -> str:
        """Airflow's URL, given or local; raises SettingError without one."""
        return self._require("airflow", self.airflow_url, "HEADRACE_AIRFLOW_URL")

    @property
    def thresholds(self) -> dict[str, str]:
        """The telemetry thresholds, as the variables that dbt/macros/telemetry.sql reads."""
        names = [name for name in type(self).__annotations__ if name.startswith("threshold_")]
        values = {PREFIX + name.upper(): str(getattr(self, name)) for name in names}
        if self.telemetry_kpis:
            values["HEADRACE_TELEMETRY_KPIS"] = ",".join(self.telemetry_kpis)
        return values | {variable: str(number) for variable, number in self.added_thresholds.items()}

    def _require(self, service: str, given: str | None, variable: str) -> str:
        address = given or self.services.get(service, {}).get("address")
        if not address:
            up = Command("up", *(("--only", service) if service == "registry" else ()))
            raise SettingError(
                f"{service}: no address; {variable} is not set and {self.home / 'services.json'} names no local "
                f"one; run `{up}` or set {variable}",
                command=up,
            )
        return str(address)


def builder_dsn(dsn: str, services: Mapping[str, Any]) -> str | None:
    """The DSN of the login for builds, from the DSN of the local server's owner; None for any other DSN."""
    record = services.get("postgres", {})
    given, local = LOCAL_DSN.fullmatch(dsn), LOCAL_DSN.fullmatch(record.get("address", ""))
    if given and local and given["passfile"] == local["passfile"] and (builder := record.get("builder")):
        return dsn[: given.start("user")] + str(builder) + dsn[given.end("user") :]
    return None


def read_services(home: Path) -> dict[str, Any]:
    """The services that `headrace up` stored: name to address and port; empty if it never ran."""
    try:
        text = (home / "services.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingError(
            f"HEADRACE_HOME: {home} cannot be read: {error.strerror}; correct its permissions"
        ) from error
    try:
        services = json.loads(text)
    except ValueError:  # cut off by a kill; `headrace up` writes it again
        return {}
    if not isinstance(services, dict):
        return {}
    return {name: record for name, record in services.items() if isinstance(record, dict)}
