"""What a registry's answers mean: of the record, or of the registry. Its client is asked over HTTP."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.exceptions import RegistryRefused, RegistryUnavailable, SettingError
from headrace.formats import registry
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import Registry, SchemaText, configuration
from headrace.masking import mask
from headrace.settings import Settings
from tests.support.certificates import Authority
from tests.support.registry_site import NOT_FOUND, Site, served


@pytest.fixture
def site() -> Iterator[Site]:
    with served(Site()) as found:
        yield found


def at(site: Site, **more: Any) -> Registry:
    return Registry(Settings(registry_url=site.url, **more))


def test_registry_keeps_a_schema_and_its_imports(site: Site) -> None:
    imports = [{"name": "Money", "subject": "money", "version": 2}]
    site.answers = {
        "/api/schemas/ids/5": (200, {"schema": '"Money"', "references": imports}),
        "/api/subjects/money/versions/2": (200, {"subject": "money", "version": 2, "id": 4, "schema": '"long"'}),
    }
    found = at(site)
    expected = SchemaText("AVRO", '"Money"', {"Money": SchemaText("AVRO", '"long"', {})})
    assert [found.schema(5), found.schema(5)] == [expected, expected]
    assert site.requests == ["/api/schemas/ids/5", "/api/subjects/money/versions/2"]


@pytest.mark.parametrize(
    ("versions", "why"), [({}, "which the registry does not have"), ({"references": "self"}, "imports itself")]
)
def test_registry_whose_schema_imports_what_cannot_be_had_says_so(
    site: Site, versions: dict[str, Any], why: str
) -> None:
    imports = [{"name": "Money", "subject": "money", "version": 1}]
    site.answers["/api/schemas/ids/5"] = (200, {"schema": "{}", "references": imports})
    site.answers["/api/subjects/money/versions/1"] = (404, {"error_code": 40401, "message": "Subject not found"})
    if versions:
        answer = {"subject": "money", "version": 1, "id": 4, "schema": "{}", "references": imports}
        site.answers["/api/subjects/money/versions/1"] = (200, answer)
    with pytest.raises(Undecodable, match=f"schema 5 refers to money version 1, {why}") as caught:
        at(site).schema(5)
    assert caught.value.fault is Fault.INCOMPATIBLE_SCHEMA


def test_registry_asks_for_an_unknown_id_again_after_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.answers["/api/schemas/ids/5"] = NOT_FOUND
    now = [100.0]
    monkeypatch.setattr("headrace.formats.registry.time.monotonic", lambda: now[0])
    found = at(site)
    for _ in range(3):
        with pytest.raises(Undecodable, match=f"schema 5 is not registered at {site.url}") as caught:
            found.schema(5)
        assert caught.value.fault is Fault.UNKNOWN_SCHEMA
    assert len(site.requests) == 1
    site.answers["/api/schemas/ids/5"] = (200, {"schema": '"long"'})
    now[0] += registry.UNKNOWN_FOR_S
    assert found.schema(5).text == '"long"'


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, "<html>no such page</html>", RegistryRefused, "answered 404, code -1: .*expected a schema registry that"),
        (404, {"message": "no route"}, RegistryRefused, "answered 404, code None: no route"),
        (404, {"error_code": 404, "message": "gone"}, RegistryRefused, "answered 404, code 404"),
        (200, "<html>a login page</html>", RegistryRefused, "gave an answer that is not JSON"),
        (401, {"error_code": 401, "message": "who?"}, RegistryRefused, "answered 401: who.*HEADRACE_REGISTRY_TOKEN"),
        (403, {"error_code": 40301, "message": "no"}, RegistryRefused, "answered 403: no"),
        (429, {"error_code": 42901, "message": "slow"}, RegistryUnavailable, "answered 429: slow"),
        (500, {"error_code": 50001, "message": "store"}, RegistryUnavailable, "answered 500: store; nothing was"),
        (503, "<html>proxy</html>", RegistryUnavailable, "answered 503"),
        (302, "", RegistryRefused, "answered 302"),
    ],
)
def test_registry_that_fails_says_nothing_of_the_record(
    site: Site, status: int, body: Any, kind: type[Exception], message: str
) -> None:
    site.answers["/api/schemas/ids/5"] = (status, body)
    with pytest.raises(kind, match=message):
        at(site).schema(5)


def test_registry_that_does_not_listen_is_unavailable(site: Site) -> None:
    closed = Registry(Settings(registry_url="http://127.0.0.1:1"))
    with pytest.raises(RegistryUnavailable, match=r"registry: http://127.0.0.1:1 does not answer: .*refused"):
        closed.schema(5)
    # the second of two addresses is asked
    site.answers["/api/schemas/ids/5"] = (200, {"schema": '"long"'})
    both = Registry(Settings(registry_url=f"http://127.0.0.1:1,{site.url}"))
    assert both.schema(5).kind == "AVRO"


def test_registry_is_given_a_password_or_a_token_that_no_message_shows(site: Site) -> None:
    site.answers["/api/schemas/ids/5"] = (401, {"error_code": 401, "message": "no"})
    for more in ({"registry_user": "etl", "registry_password": "s3cret-pass"}, {"registry_token": "t0ken-of-mine"}):
        with pytest.raises(RegistryRefused):
            at(site, **more).schema(5)
    basic = "Basic " + base64.b64encode(b"etl:s3cret-pass").decode()
    assert site.authorizations == [basic, "Bearer t0ken-of-mine"]
    assert mask(f"{basic} s3cret-pass t0ken-of-mine").count("***") == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"registry_url": "127.0.0.1:8081"}, "HEADRACE_REGISTRY_URL: found '127.0.0.1:8081', expected http://"),
        ({"registry_user": "etl"}, "HEADRACE_REGISTRY_USER: found no HEADRACE_REGISTRY_PASSWORD, expected it too"),
        ({"registry_password": "abc"}, "HEADRACE_REGISTRY_PASSWORD: found no HEADRACE_REGISTRY_USER"),
        ({"registry_user": "a:b", "registry_password": "abc"}, "found a colon in it"),
        ({"registry_token": "t", "registry_user": "u"}, "HEADRACE_REGISTRY_TOKEN: found a user or a password too"),
        ({"registry_ssl_keyfile": Path("key.pem")}, "found no HEADRACE_REGISTRY_SSL_CERTFILE"),
    ],
)
def test_registry_settings_that_contradict_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        configuration(replace(Settings(registry_url="https://registry.example"), **given))


def test_registry_without_an_address_names_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="run `headrace up --only registry` or set HEADRACE_REGISTRY_URL"):
        Registry(Settings(home=tmp_path)).schema(5)


def test_registry_whose_authority_cannot_be_read_is_a_setting(tmp_path: Path) -> None:
    settings = Settings(registry_url="https://registry.example", registry_ssl_cafile=tmp_path / "none.pem")
    with pytest.raises(SettingError, match="HEADRACE_REGISTRY_SSL_CAFILE, _CERTFILE or _KEYFILE cannot be used"):
        Registry(settings).schema(5)


def test_registry_url_with_a_user_in_it_is_refused(tmp_path: Path) -> None:
    environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_REGISTRY_URL": "http://me:pass@registry.example"}
    with pytest.raises(SettingError, match="HEADRACE_REGISTRY_URL: found a user in it") as caught:
        Settings.from_environment(environ)
    assert "me:pass" not in str(caught.value)


def test_registry_with_tls_is_asked_only_if_its_certificate_is_trusted(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "stranger")
    client = authority.sign("client", password="k3y-of-mine")
    made = Site()
    made.answers["/api/schemas/ids/5"] = (200, {"schema": '"long"'})
    with served(made, authority.sign("server", "127.0.0.1"), clients=authority.path) as site:
        files = {"registry_ssl_certfile": client.certificate, "registry_ssl_keyfile": client.key}
        trusted = at(site, registry_ssl_cafile=authority.path, registry_ssl_password="k3y-of-mine", **files)
        assert trusted.schema(5).text == '"long"'
        for distrusting in (at(site), at(site, registry_ssl_cafile=stranger.path)):
            with pytest.raises(RegistryRefused, match=r"certificate is not trusted.*HEADRACE_REGISTRY_SSL_CAFILE"):
                distrusting.schema(5)
        with pytest.raises((RegistryUnavailable, RegistryRefused), match=f"registry: {site.url}"):
            at(site, registry_ssl_cafile=authority.path).schema(5)
    elsewhere = authority.sign("elsewhere", "localhost")  # a certificate of another host
    with served(made, elsewhere) as site, pytest.raises(RegistryRefused, match="certificate is not trusted"):
        at(site, registry_ssl_cafile=authority.path).schema(5)
