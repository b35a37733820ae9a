"""Extras of Airflow's connections: what they become, what is ignored, what is refused and how."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from redis.connection import SSLConnection, parse_url

from headrace.airflow.extras import libpq_parameters, redis_url, registry_settings
from headrace.exceptions import SettingError
from headrace.settings import Settings


@dataclass
class Given:
    """A connection, as far as it is read."""

    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    schema: str | None = None
    extra_dejson: dict[str, Any] = field(default_factory=dict)
    conn_type: str | None = None
    extra: str | None = None


AWKWARD = "p @:/?#[]%'\\\" é"


def test_postgres_fields_and_extras_become_libpqs_parameters() -> None:
    given = Given("::1", 5433, "u@x", AWKWARD, "d b", {"sslmode": "require", "keepalives": True, "connect_timeout": 5})
    parameters = libpq_parameters("headrace_postgres", given)
    assert conninfo_to_dict(make_conninfo("", **parameters)) == {
        "host": "::1", "port": "5433", "user": "u@x", "password": AWKWARD, "dbname": "d b", "sslmode": "require",
        "keepalives": "1", "connect_timeout": "5",
    }  # fmt: skip


def test_postgres_extras_of_the_provider_alone_are_ignored() -> None:
    extra = {
        "cursor": "dictcursor", "sqlalchemy_scheme": "postgresql+psycopg", "sqlalchemy_query": {"a": "b"},
        "iam": False, "redshift": "false", "cluster-identifier": "c", "aws_conn_id": "aws", "placeholder": "%s",
        "sslmode": None,
    }  # fmt: skip
    assert libpq_parameters("headrace_postgres", Given("h", extra_dejson=extra)) == {"host": "h"}


def test_postgres_extra_stands_in_for_an_empty_field() -> None:
    given = Given("h", schema="", extra_dejson={"dbname": "d", "host": "h"})
    assert libpq_parameters("headrace_postgres", given) == {"host": "h", "dbname": "d"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"iam": True}, "headrace_postgres: found 'iam' in its extra, expected a password or a client certificate"),
        ({"redshift": "true"}, "headrace_postgres: found 'redshift' in its extra, expected a password"),
        ({"ssl_mode": "require"}, "headrace_postgres: found 'ssl_mode' in its extra, expected parameters of libpq"),
        ({"sslmode": {"a": 1}}, "headrace_postgres: sslmode: found dict, expected text or a number; correct it"),
        ({"iam": "perhaps"}, "headrace_postgres: iam: found 'perhaps', expected true or false; correct it"),
        ({"host": "other"}, "headrace_postgres: found 'host' in its extra and another value in its field host"),
        ({"dbname": "other"}, "headrace_postgres: found 'dbname' in its extra and another value in its field schema"),
    ],
)
def test_postgres_extra_that_libpq_cannot_use_is_refused_in_one_line(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        libpq_parameters("headrace_postgres", Given("h", schema="d", extra_dejson=extra))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["::1", "[::1]", "fe80::1", "127.0.0.1", "cache.example"])
def test_redis_host_of_any_kind_is_read_back_as_it_was(host: str) -> None:
    found = parse_url(redis_url("headrace_redis", Given(host, 6380, "u@:/", AWKWARD, extra_dejson={"db": "3"})))
    assert found == {"host": host.strip("[]"), "port": 6380, "username": "u@:/", "password": AWKWARD, "db": 3}


def test_redis_password_without_a_user_and_the_database_of_a_uri() -> None:
    assert parse_url(redis_url("headrace_redis", Given("h", password="p/", schema="2"))) == {
        "host": "h", "port": 6379, "password": "p/", "db": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ssl", "is_tls"),
    [
        (True, True),
        ("true", True),
        ("True", True),
        (1, True),
        (False, False),
        ("false", False),
        ("0", False),
        (None, False),
    ],
)
def test_redis_flag_is_what_it_says(ssl: Any, is_tls: bool) -> None:
    found = parse_url(redis_url("headrace_redis", Given("h", extra_dejson={"ssl": ssl})))
    assert (found.get("connection_class") is SSLConnection) == is_tls


def test_redis_private_authority_and_client_certificate_reach_the_client(tmp_path: Path) -> None:
    path = tmp_path / "a ca&b.pem"
    path.write_text("")
    extra = {"ssl": "true", "ssl_ca_certs": str(path), "ssl_cert_reqs": "required", "ssl_check_hostname": "false"}
    found = parse_url(redis_url("headrace_redis", Given("h", extra_dejson=extra)))
    assert (found["ssl_ca_certs"], found["ssl_cert_reqs"], found["ssl_check_hostname"]) == (
        str(path),
        "required",
        False,
    )
    assert "ssl_ca_certs" not in redis_url("headrace_redis", Given("h", extra_dejson=extra | {"ssl": False}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(), "headrace_redis: found host None, expected a name or an address alone; correct it"),
        (Given("redis://h"), "headrace_redis: found host 'redis://h', expected a name or an address alone; correct it"),
        (Given("h", extra_dejson={"ssl": "maybe"}), "headrace_redis: ssl: found 'maybe', expected true or false"),
        (
            Given("h", schema="1", extra_dejson={"db": 2}),
            "headrace_redis: found 'db' in its extra and another value in",
        ),
        (Given("h", extra_dejson={"db": "x"}), "headrace_redis: db: found 'x', expected a number; correct it"),
        (
            Given("h", extra_dejson={"sssl": True}),
            "headrace_redis: found 'sssl' in its extra, expected some of db",
        ),
        (
            Given("h", extra_dejson={"ssl_ca_certs": "/x"}),
            "headrace_redis: found 'ssl_ca_certs' in its extra",
        ),
        (
            Given("h", extra_dejson={"ssl": True, "ssl_ca_certs": "/no/such"}),
            "headrace_redis: ssl_ca_certs: /no/such cannot be read: No such file or directory; name a file",
        ),
        (
            Given("h", extra_dejson={"ssl": True, "ssl_cert_reqs": "CERT_NONE"}),
            "headrace_redis: ssl_cert_reqs: found 'CERT_NONE', expected none, optional or required; correct it",
        ),
    ],
)
def test_redis_connection_that_cannot_be_used_is_refused_in_one_line(given: Given, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        redis_url("headrace_redis", given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [libpq_parameters, redis_url])
@pytest.mark.parametrize(("text", "decoded"), [("sslmode=require,p4ssword", {}), ('["p4ssword"]', ["p4ssword"])])
def test_extra_that_is_no_json_object_is_refused_and_not_taken_for_an_empty_one(
    read: Callable[..., Any], text: str, decoded: Any
) -> None:
    with pytest.raises(SettingError, match="its_name: found an extra that is no JSON object") as caught:
        read("its_name", Given("h", extra_dejson=decoded, extra=text))
    assert "p4ssword" not in str(caught.value)


@pytest.mark.parametrize(("text", "decoded"), [("", {}), (" ", {}), ("{ }", {}), ("null", None)])
def test_empty_extra_is_none(text: str, decoded: Any) -> None:
    assert libpq_parameters("its_name", Given("h", extra_dejson=decoded, extra=text)) == {"host": "h"}


def test_redis_uri_of_tls_is_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    found = parse_url(
        redis_url(
            "headrace_redis",
            Given("h", conn_type="rediss", extra_dejson={"ssl_ca_certs": str(tmp_path / "ca.pem")}),
        )
    )
    assert (found["connection_class"], found["ssl_ca_certs"]) == (SSLConnection, str(tmp_path / "ca.pem"))
    with pytest.raises(SettingError, match='headrace_redis: found rediss:// and "ssl": false in its extra'):
        redis_url("headrace_redis", Given("h", conn_type="rediss", extra_dejson={"ssl": False}))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"url": "https://u:p4ssword@h,https://g"},
            "headrace_registry: found a user in the url of its extra, expected",
        ),
        (
            {"url": "https://h,https://u:p4ssword@g"},
            "headrace_registry: found a user in the url of its extra, expected",
        ),
        ({"url": ["https://h"]}, "headrace_registry: url: found list, expected text; correct it"),
    ],
)
def test_registry_connection_that_cannot_be_used_is_refused_in_one_line(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        registry_settings("headrace_registry", Given(extra_dejson=extra), Settings())
    assert str(caught.value).startswith(message)
    assert "p4ssword" not in str(caught.value)


def test_registry_token_of_digits_is_text_and_nothing_of_other_settings_is_kept() -> None:
    others = Settings(registry_password="theirs", registry_ssl_password="theirs")
    made = registry_settings("headrace_registry", Given(extra_dejson={"url": "https://h", "token": 123456}), others)
    assert (made.registry_url, made.registry_token) == ("https://h", "123456")
    assert (made.registry_password, made.registry_ssl_password, made.registry_ssl_cafile) == (None, None, None)
