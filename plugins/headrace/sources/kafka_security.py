"""Security options of Kafka's clients, from settings or an Airflow connection; refusals of brokers in one line."""

import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from headrace import masking
from headrace.exceptions import SettingError, SourceRefused
from headrace.private_files import open_regular
from headrace.settings import PREFIX, SaslMechanism, SecurityProtocol, Settings
from headrace.sources.kafka_handshake import bound_handshakes
from headrace.sources.kafka_log import once_per_cause
from headrace.sources.kafka_probe import reason_of, tls_context, why_refused

CONNECTION = "headrace_kafka"

# kafka-python's name of an option, and librdkafka's, which Airflow's Kafka provider documents for its connection
OPTIONS = {
    "bootstrap_servers": "bootstrap.servers",
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "sasl_oauth_token_url": "sasl.oauthbearer.token.endpoint.url",
    "sasl_oauth_scope": "sasl.oauthbearer.scope",
    "sasl_oauth_cafile": "https.ca.location",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
}
_OURS = {librdkafka: name for name, librdkafka in OPTIONS.items()} | {
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.oauthbearer.client.id": "sasl_plain_username",
    "sasl.oauthbearer.client.secret": "sasl_plain_password",
}
OAUTH, MSK = "OAUTHBEARER", "AWS_MSK_IAM"
TOKENS = "sasl_oauth_token_provider"  # kafka-python's option
SECRETS = ("sasl_plain_password", "ssl_password")
SASL = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
OF_OAUTH = ("sasl_oauth_token_url", "sasl_oauth_scope", "sasl_oauth_cafile")
WORDS = ("security_protocol", "sasl_mechanism")
TLS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")


def from_settings(settings: Settings) -> dict[str, Any]:
    """kafka-python's options from HEADRACE_KAFKA_*; raises SettingError for a contradiction."""
    given = {name: getattr(settings, _setting(name)) for name in OPTIONS if name != "bootstrap_servers"}
    config = {name: str(value) for name, value in given.items() if value not in (None, "PLAINTEXT")}
    servers = settings.require_kafka_bootstrap_servers().split(",")
    return _checked({"bootstrap_servers": servers} | config, lambda name: PREFIX + _setting(name).upper())


def from_connection(extra: Mapping[str, Any], login: str | None, password: str | None) -> dict[str, Any]:
    """kafka-python's options from an Airflow connection's extra, in librdkafka's names or kafka-python's.

    login and password are used for SASL unless the extra has them. Raises SettingError for other options: a connection
    must not change how records are read. So it does for two values of one option, by both of its names.
    """
    config: dict[str, Any] = {}
    for name, value in extra.items():
        if value is None or value == "":  # an empty field of the form
            continue
        if name == "sasl.oauthbearer.method" and str(value).lower() == "oidc":  # of librdkafka: by an endpoint
            continue
        ours = _OURS.get(name, name.replace(".", "_"))
        if ours not in OPTIONS:
            raise SettingError(
                f"{CONNECTION}: found {name!r} in its extra, expected some of {', '.join(OPTIONS.values())}; remove it"
            )
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SettingError(f"{CONNECTION}: {name}: found {type(value).__name__}, expected text; correct it")
        text = str(value).upper() if ours in WORDS else str(value)  # librdkafka documents sasl_ssl
        if config.setdefault(ours, text) != text:
            raise SettingError(
                f"{CONNECTION}: found two values of {OPTIONS[ours]} in its extra, expected one; remove {name}"
            )
    if "bootstrap_servers" not in config:
        raise SettingError(f"{CONNECTION}: its extra has no bootstrap.servers; add the brokers' addresses")
    for name, value in (("sasl_plain_username", login), ("sasl_plain_password", password)):
        if value and config.get("security_protocol", "").startswith("SASL"):
            config.setdefault(name, value)
    config["bootstrap_servers"] = config["bootstrap_servers"].split(",")
    return _checked(config, lambda name: f"{CONNECTION}: {OPTIONS[name]}")


def refusal(error: BaseException, config: Mapping[str, Any], topic: str) -> SourceRefused | None:
    """The error for a client's error by which broker or client refuses the other; None for other errors."""
    from kafka.errors import AuthorizationError, SaslAuthenticationFailedError  # 0.3 s of imports

    servers = config["bootstrap_servers"]
    where = servers if isinstance(servers, str) else ",".join(servers)
    user = config.get("sasl_plain_username")
    name = type(error).__name__
    text = " ".join(f"{name}: {str(error).removeprefix(f'{name}: ')}".split())
    if isinstance(error, AuthorizationError):
        return SourceRefused(
            f"{topic}: {where} does not allow this to {f'user {user}' if user else 'this client'}: {text}; nothing was "
            "changed; add the ACLs that docs/security.md lists",
            cause=f"Kafka at {where} refuses {f'user {user}' if user else 'this client'}",
        )
    found = f"user {user} is refused: {text}" if isinstance(error, SaslAuthenticationFailedError) else None
    if getattr(error, "retriable", False):  # kafka-python reports no answer
        found = why_refused({**config, "bootstrap_servers": where.split(",")})
    if found is None:
        return None
    return SourceRefused(
        f"kafka: {where}: {found}; nothing was changed; correct HEADRACE_KAFKA_* (in Airflow: the connection "
        f"{CONNECTION}), or the broker",
        cause=f"Kafka at {where} refuses {f'user {user}' if user else 'this client'}",
    )


def _checked(config: dict[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    once_per_cause()
    for name in SECRETS:
        masking.remember(config.get(name))
    protocol = config.get("security_protocol", "PLAINTEXT")
    for name, words in (("security_protocol", SecurityProtocol), ("sasl_mechanism", SaslMechanism)):
        if name in config and config[name] not in get_args(words):
            raise SettingError(f"{named(name)}: found {config[name]!r}, expected {' or '.join(get_args(words))}")
    for names, kind in (((*SASL, *OF_OAUTH), "SASL"), (TLS, "SSL")):
        given = [name for name in names if name in config]
        if given and kind not in protocol:
            raise SettingError(
                f"{named(given[0])}: is of no use with {protocol}, expected {named('security_protocol')} to name "
                f"{kind}; set that, or remove this"
            )
    if "SASL" in protocol:
        _check_sasl(config, named)
    if "ssl_keyfile" in config and "ssl_certfile" not in config:
        raise SettingError(
            f"{named('ssl_keyfile')}: found no {named('ssl_certfile')}, expected the certificate of this key"
        )
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_oauth_cafile"):
        if name in config:
            _check_readable(Path(config[name]), named(name))
    if "SSL" in protocol:
        bound_handshakes()
        try:
            tls_context(config)
        except (ssl.SSLError, ValueError) as error:
            reason = reason_of(error)
            name = "ssl_certfile" if "ssl_certfile" in config else "ssl_cafile"
            raise SettingError(
                f"{named(name)}: {config.get(name)} cannot be used: {reason}; expected certificates in PEM, the key "
                f"that belongs to them, and its password in {named('ssl_password')} if it has one"
            ) from error
    if "ssl_certfile" in config:
        _check_time(Path(config["ssl_certfile"]), named("ssl_certfile"))
    return _with_tokens(config, named)


def _check_sasl(config: Mapping[str, Any], named: Callable[[str], str]) -> None:
    """Refuse options that the mechanism lacks, or that it has no use for."""
    mechanism = config.get("sasl_mechanism")
    needed = SASL[:1] if mechanism == MSK else (*SASL, *(OF_OAUTH[:1] if mechanism == OAUTH else ()))
    if lacking := [name for name in needed if name not in config]:
        option = "security_protocol" if lacking[0] in SASL else "sasl_mechanism"
        raise SettingError(f"{named(option)}: found {config[option]} without {named(lacking[0])}, expected it too")
    useless = () if mechanism == OAUTH else (*OF_OAUTH, *(SASL[1:] if mechanism == MSK else ()))
    if given := [name for name in useless if name in config]:
        raise SettingError(
            f"{named(given[0])}: is of no use with {mechanism}, expected {named('sasl_mechanism')} to be "
            f"{'another one' if mechanism == MSK else OAUTH}; set that, or remove this"
        )
    url = config.get("sasl_oauth_token_url")
    parts = urlsplit(url or "")
    schemes = ("https", "http") if parts.hostname in ("localhost", "127.0.0.1", "::1") else ("https",)
    if url and (not parts.hostname or parts.username is not None or parts.scheme not in schemes):
        masking.remember_address(url)
        raise SettingError(
            f"{named('sasl_oauth_token_url')}: found no https:// URL without a user, expected one: the client's secret "
            "is sent there; correct it"
        )


def _with_tokens(config: dict[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The options with a provider of tokens in the place of what it is made of; the user stays, for messages."""
    mechanism = config.get("sasl_mechanism")
    if mechanism not in (OAUTH, MSK):
        return config
    from headrace.sources import kafka_oauth  # kafka-python: 0.3 s of imports

    kept = {name: value for name, value in config.items() if name not in (*OF_OAUTH, "sasl_plain_password")}
    if mechanism == MSK:
        tokens = kafka_oauth.msk_tokens(kafka_oauth.region_of(config["bootstrap_servers"]))
        return kept | {"sasl_mechanism": OAUTH, TOKENS: tokens}
    url, scope, cafile = (config.get(name) for name in OF_OAUTH)
    user, secret = config["sasl_plain_username"], config["sasl_plain_password"]
    try:
        return kept | {TOKENS: kafka_oauth.endpoint_tokens(url, user, secret, scope, cafile)}
    except ssl.SSLError as error:
        raise SettingError(
            f"{named('sasl_oauth_cafile')}: {cafile} cannot be used: {reason_of(error)}; expected certificates in PEM"
        ) from error


def _check_time(path: Path, name: str) -> None:
    """Refuse a certificate that is not valid now; a broker reports only that it does not know it."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= datetime.now(UTC) <= end:
        raise SettingError(
            f"{name}: {path} is valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, expected one that is "
            "valid now; nothing was changed; have it renewed"
        )


def _check_readable(path: Path, name: str) -> None:
    try:
        open_regular(path).close()
    except OSError as error:
        raise SettingError(
            f"{name}: {path} cannot be read: {error.strerror}; name a file that this user may read"
        ) from error


def _setting(name: str) -> str:
    """The name of an option's setting: without kafka-python's prefix `plain`, which does not mean the mechanism."""
    return f"kafka_{name.replace('sasl_plain_', 'sasl_')}"
