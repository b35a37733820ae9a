"""A schema registry that speaks Confluent's API: which schema an id stands for.

confluent-kafka's client asks it and keeps what it learned; a schema never changes under its id. An id that the registry
does not know says something of the record. Everything else that goes wrong says something of the registry, and raises:
no answer, an error of the server, a refused login, an answer of another kind of server.
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

import json
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headrace import masking
from headrace.exceptions import RegistryRefused, RegistryUnavailable, SettingError
from headrace.formats.base import Fault, Undecodable
from headrace.optional import needs
from headrace.settings import PREFIX, Settings

TIMEOUT_S = 10.0
UNKNOWN_FOR_S = 5.0  # an id that was unknown is asked for again after this, as it may have been registered since
UNKNOWN_MAX = 10_000  # ids that are remembered as unknown: damaged records name any of 2**32
SCHEMA_NOT_FOUND, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND = 40403, 40401, 40402  # Confluent's error codes
UNREADABLE_SCHEMA = 42201

AVRO, JSON_SCHEMA, PROTOBUF = "AVRO", "JSON", "PROTOBUF"


@dataclass(frozen=True, slots=True)
class SchemaText:
    """A schema as it was registered: its kind (AVRO, JSON, PROTOBUF), its text, and what it imports, by name."""

    kind: str
    text: str
    imports: Mapping[str, "SchemaText"]


class Schemas(Protocol):
    """What formats ask a registry."""

    def schema(self, schema_id: int) -> SchemaText:
        """The schema of an id; raises Undecodable where there is none, HeadraceError where that cannot be found out."""

    def versions(self, subject: str) -> Iterator[tuple[int, SchemaText]]:
        """Ids and schemas of all versions of a subject; none of one that does not exist."""


class Unconnected:
    """The registry of a declaration that no deployment has connected."""

    def schema(self, schema_id: int) -> SchemaText:
        """Raise: there is no registry."""
        raise RegistryRefused(
            f"registry: schema {schema_id} was asked for without a deployment; expected a dataset of "
            "Deployment.dataset or Dataset.connected"
        )

    def versions(self, _subject: str) -> Iterator[tuple[int, SchemaText]]:
        """Raise: there is no registry."""
        self.schema(0)
        yield from ()


class Registry:
    """A registry at the address of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Any = None
        self._known: dict[int, SchemaText] = {}
        self._unknown: dict[int, float] = {}  # id to when it is asked for again

    def schema(self, schema_id: int) -> SchemaText:
        """The schema of an id, its imports included.

        Raises Undecodable where the registry has none (error code 40403), RegistryUnavailable where it does not answer
        or fails (5xx), RegistryRefused where it rejects the login or is none, SettingError where it has no
        address.
        """
        found = self._known.get(schema_id)
        if found is not None:
            return found
        if self._unknown.get(schema_id, 0.0) > time.monotonic():
            raise self._not_found(schema_id)
        found = self._asked(self._client.get_schema, schema_id)
        if found is None:
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[schema_id] = time.monotonic() + UNKNOWN_FOR_S
            raise self._not_found(schema_id)
        self._unknown.pop(schema_id, None)
        self._known[schema_id] = made = self._with_imports(found, f"schema {schema_id}", ())
        return made

    def versions(self, subject: str) -> Iterator[tuple[int, SchemaText]]:
        """Ids and schemas of all versions of a subject; none of one that does not exist."""
        for version in self._asked(self._client.get_versions, subject) or ():
            found = self._asked(self._client.get_version, subject, version)
            if found is not None:
                yield found.schema_id, self._with_imports(found.schema, f"subject {subject}", ())

    def subjects(self) -> list[str]:
        """The names of all subjects; raises what `schema` raises because of the registry."""
        return list(self._asked(self._client.get_subjects) or ())

    def _with_imports(self, schema: Any, what: str, above: tuple[tuple[str, int], ...]) -> SchemaText:
        imports: dict[str, SchemaText] = {}
        for reference in schema.references or ():
            place = (reference.subject, reference.version)
            found = None if place in above else self._asked(self._client.get_version, *place)
            if found is None:
                why = "imports itself" if place in above else "which the registry does not have"
                raise Undecodable(
                    Fault.INCOMPATIBLE_SCHEMA,
                    f"{what} refers to {reference.subject} version {reference.version}, {why}",
                )
            imports[reference.name] = self._with_imports(found.schema, what, (*above, place))
        return SchemaText(schema.schema_type or AVRO, schema.schema_str, imports)

    def _not_found(self, schema_id: int) -> Undecodable:
        return Undecodable(
            Fault.UNKNOWN_SCHEMA, f"schema {schema_id} is not registered at {self._settings.require_registry_url()}"
        )

    @property
    def _client(self) -> Any:
        if self._opened is None:
            self._opened = _opened(self._settings)
        return self._opened

    def _asked(self, ask: Any, *words: Any) -> Any:
        """The registry's answer; None where it says that it has no such schema, subject or version."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        url = self._settings.require_registry_url()
        try:
            return ask(*words)
        except SchemaRegistryError as error:
            status, code = error.http_status_code, error.error_code
            if status == 404 and code in (SCHEMA_NOT_FOUND, SUBJECT_NOT_FOUND, VERSION_NOT_FOUND):
                return None
            message = " ".join(str(error.error_message).split())[:200]
            if status in (408, 429) or status >= 500:
                raise RegistryUnavailable(
                    f"registry: {url} answered {status}: {message}; nothing was changed; run it again",
                    cause=_no_answer_of(url),
                ) from error
            if status in (401, 403):
                raise RegistryRefused(
                    f"registry: {url} answered {status}: {message}; nothing was changed; correct "
                    "HEADRACE_REGISTRY_USER and HEADRACE_REGISTRY_PASSWORD, or HEADRACE_REGISTRY_TOKEN",
                    cause=f"the schema registry at {url} refuses this user",
                ) from error
            raise RegistryRefused(
                f"registry: {url} answered {status}, code {code}: {message}; expected a schema registry that speaks "
                "Confluent's API; nothing was changed; correct HEADRACE_REGISTRY_URL"
            ) from error
        except ValueError as error:  # JSON of none of its kinds
            raise RegistryRefused(
                f"registry: {url} gave an answer that is not JSON, expected a schema registry that speaks Confluent's "
                "API; nothing was changed; correct HEADRACE_REGISTRY_URL"
            ) from error
        except OSError as error:
            raise _no_answer(url, error) from error
        except Exception as error:
            if not type(error).__module__.startswith("http"):  # httpx's errors share no base with Python's
                raise
            raise _no_answer(url, error) from error


def _no_answer(url: str, error: BaseException) -> RegistryUnavailable | RegistryRefused:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    reason = " ".join(str(error).split()) or type(error).__name__
    if cause is not None or "CERTIFICATE_VERIFY_FAILED" in reason:
        return RegistryRefused(
            f"registry: {url}: its certificate is not trusted: {reason}; nothing was changed; set "
            "HEADRACE_REGISTRY_SSL_CAFILE to the authority's certificate",
            cause=f"the certificate of the schema registry at {url} is not trusted",
        )
    return RegistryUnavailable(
        f"registry: {url} does not answer: {reason}; nothing was changed; run it again", cause=_no_answer_of(url)
    )


def _no_answer_of(url: str) -> str:
    return f"the schema registry at {url} does not answer"


def _opened(settings: Settings) -> Any:
    with needs("registry"):
        from confluent_kafka.schema_registry import SchemaRegistryClient

    try:
        return SchemaRegistryClient(configuration(settings))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingError(
            f"{PREFIX}REGISTRY_SSL_CAFILE, _CERTFILE or _KEYFILE cannot be used: {error}; expected certificates in "
            f"PEM, the key that belongs to them, and its password in {PREFIX}REGISTRY_SSL_PASSWORD if it has one"
        ) from error


def configuration(settings: Settings) -> dict[str, Any]:
    """The client's configuration, as confluent-kafka names it; raises SettingError for settings that contradict."""
    url = settings.require_registry_url()
    for name in ("password", "token", "ssl_password"):
        masking.remember(getattr(settings, f"registry_{name}"))
    for each in url.split(","):
        if not each.strip().startswith(("http://", "https://")):
            raise SettingError(f"{PREFIX}REGISTRY_URL: found {each!r}, expected http://host:port or https://host:port")
    conf: dict[str, Any] = {"url": url, "timeout": TIMEOUT_S, "max.retries": 0}
    user, password, token = settings.registry_user, settings.registry_password, settings.registry_token
    if token and (user or password):
        raise SettingError(f"{PREFIX}REGISTRY_TOKEN: found a user or a password too, expected one of them; unset one")
    if bool(user) != bool(password):
        lacking, given = ("PASSWORD", "USER") if user else ("USER", "PASSWORD")
        raise SettingError(f"{PREFIX}REGISTRY_{given}: found no {PREFIX}REGISTRY_{lacking}, expected it too")
    if user:
        if ":" in user:
            raise SettingError(f"{PREFIX}REGISTRY_USER: found a colon in it, which basic authentication does not allow")
        conf["basic.auth.user.info"] = f"{user}:{password}"
    if token:
        fields = {"bearer.auth.token": token, "bearer.auth.logical.cluster": ""}
        conf |= {
            "bearer.auth.credentials.source": "CUSTOM",  # STATIC_TOKEN wants a cluster of Confluent's cloud
            "bearer.auth.custom.provider.function": lambda _config: fields,
            "bearer.auth.custom.provider.config": {},
        }
    if settings.registry_ssl_keyfile and not settings.registry_ssl_certfile:
        raise SettingError(f"{PREFIX}REGISTRY_SSL_KEYFILE: found no {PREFIX}REGISTRY_SSL_CERTFILE, expected it too")
    for ours, theirs in (
        ("cafile", "ssl.ca.location"),
        ("certfile", "ssl.certificate.location"),
        ("keyfile", "ssl.key.location"),
        ("password", "ssl.key.password"),
    ):
        value = getattr(settings, f"registry_ssl_{ours}")
        if value is not None:
            conf[theirs] = str(value)
    return conf


def parsed_json(text: str, what: str) -> Any:
    """A schema's JSON; raises Undecodable where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is not JSON: {error}") from error
