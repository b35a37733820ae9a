"""Secrets that were read are in no message, in no form."""

import html
import io
import json
import logging
import pickle
import random
import re
import shlex
import traceback
import xml.sax.saxutils
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlencode

import markupsafe
import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from headrace import logs, masking
from headrace.cli.services import _quoted
from headrace.escaping import visible
from headrace.exceptions import DatabaseError, SettingError
from headrace.service_urls import without_secret
from headrace.settings import Settings

SECRET = 'p@ss "w0rd"/%'


def _sqlalchemy_url(text: str) -> str:
    from sqlalchemy import URL  # one test needs it, and it takes as long as fifty others

    return URL.create("postgresql", "u", text, "h").render_as_string(hide_password=False)


CANARIES = [
    "canary-plain",
    "canary#one",
    "canary@two:three/four?five%six",
    "canary one  two",
    " canary-between-blanks ",
    "canary\ttab",
    "can'ary",
    'can"ary\\',
    'canärý-日本 "ü\'é"',
    "canary+<&>;$(x)`y`",
    "canary\x1b[2J\u202e",
]
WRITERS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "line": lambda text: " ".join(f"x {text} y".split()),
    "visible": visible,
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "KeyError": lambda text: str(KeyError(text)),
    "JSON": json.dumps,
    "JSON, not ASCII": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON by orjson": lambda text: orjson.dumps(text).decode(),
    "JSON of a repr": lambda text: json.dumps(repr({"password": text})),
    "repr of JSON": lambda text: repr(json.dumps({"password": text})),
    "percent": lambda text: quote(text, safe=""),
    "percent as in a path": quote,
    "percent, small": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "a form": lambda text: urlencode({"password": text}),
    "SQLAlchemy": _sqlalchemy_url,
    "a shell": shlex.quote,
    "a shell, by headrace env": _quoted,
    "libpq": lambda text: make_conninfo(password=text),
    "SQL": lambda text: psycopg.sql.Literal(text).as_string().replace("\\\\", "\\"),
    "JAAS": lambda text: 'password="' + re.sub(r'([\\"])', r"\\\1", text) + '";',
    "HTML": html.escape,
    "HTML by MarkupSafe": lambda text: str(markupsafe.escape(text)),
    "HTML of JSON": lambda text: html.escape(json.dumps(text)),
    "XML": lambda text: xml.sax.saxutils.escape(text, {'"': "&quot;"}),
    "Basic": lambda text: b64encode(f"etl:{text}".encode()).decode(),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: urlsafe_b64encode(f"\0user\0{text}\0".encode()).decode(),
}


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with nothing known."""
    monkeypatch.setattr(masking, "_secrets", set())


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://etl:canary%40one@db/sales",
        "postgresql://etl@db/sales?password=canary%40one&sslmode=require",
        "host=db password=canary@one user=etl",
        r"host=db password = 'canary\@one' user=etl",
        "rediss://:canary%40one@cache:6379/0",
    ],
)
def test_password_of_an_address_is_masked_in_any_form(address: str) -> None:
    masking.remember_address(address)
    assert masking.mask("x canary@one y canary%40one z") == "x *** y *** z"


@pytest.mark.security("M1")
@pytest.mark.parametrize("writer", WRITERS)
def test_secret_is_masked_however_it_is_written(writer: str) -> None:
    for canary in CANARIES:
        masking.remember(canary)
    for canary in CANARIES:
        written = WRITERS[writer](canary)
        masked = masking.mask(f"before {written} behind")
        assert masked.startswith("before "), masked
        assert masking.MASK in masked
        assert not re.search("can.{0,4}ary|ärý|two|one", masked), masked
        core = b64encode(canary.strip().encode()).decode()[4:-4]
        assert core not in masked


ODD = "aZ9-_ \t\n\r'\"\\/%+&=?@:;,.#<>$`!()*~^|{}[]ü日\x1b\x9b\u202e\U0001f600\u00a0"


def test_any_secret_is_masked_in_a_text_that_was_written_twice() -> None:
    chance = random.Random(15)
    singly = [name for name in WRITERS if " of " not in name and "ase64" not in name and name != "Basic"]
    for _ in range(60):
        secret = "".join(chance.choices(ODD, k=chance.randint(masking.LENGTH_MIN + 3, 24)))
        if len(" ".join(secret.split())) < masking.LENGTH_MIN:
            continue
        masking._secrets.clear()
        masking.remember(secret)
        for name, writer in WRITERS.items():
            assert masking.MASK in masking.mask(f"before {writer(secret)} behind"), (name, secret)
        inner, outer = chance.sample(singly, 2)
        if outer != "line":
            assert masking.MASK in masking.mask(WRITERS[outer](WRITERS[inner](secret))), (inner, outer, secret)


def addresses(password: str) -> Iterator[tuple[str, str]]:
    """The name of a setting, and an address of it that holds the password."""
    escaped = quote(password, safe="")
    yield "postgres_dsn", f"postgresql://etl:{escaped}@db/sales"
    yield "postgres_dsn", f"postgres://etl:{escaped}@h1:5432,h2:5433/sales?target_session_attrs=any"
    yield "postgres_dsn", f"postgresql://etl@db/sales?sslmode=require&password={escaped}"
    yield "postgres_dsn", f"postgresql:///sales?host=/tmp&pass%77ord={escaped}"
    yield "postgres_dsn", f"postgresql://etl@db/sales?sslkey=/k&sslpassword={escaped}"
    yield "postgres_dsn", make_conninfo(host="db", user="etl", password=password)
    yield "postgres_dsn", make_conninfo(service="sales", sslpassword=password, passfile="/pgpass")
    bare = re.sub(r"([\\'\s])", r"\\\1", password)
    yield "dbt_dsn", f"host=db password={bare} user=etl"
    yield "dbt_dsn", "host=db password  =  '{}' user=etl".format(re.sub(r"([\\'])", r"\\\1", password))
    yield "redis_url", f"redis://:{escaped}@cache:6379/0"
    yield "redis_url", f"rediss://etl:{escaped}@cache/1?ssl_cert_reqs=none"
    yield "redis_url", f"redis://cache:6379/0?db=2&password={escaped}"
    yield "redis_url", f"unix://etl:{escaped}@/run/valkey.sock?db=1"
    yield "redis_url", f"unix:///run/valkey.sock?password={escaped}"
    yield "redis_url", f"rediss://cache?ssl_keyfile=/k&ssl_password={escaped}"


@pytest.mark.security("M1")
@pytest.mark.parametrize("canary", CANARIES)
def test_secret_of_an_address_is_found_where_its_driver_finds_it(canary: str) -> None:
    for name, address in addresses(canary):
        masking._secrets.clear()
        masking.remember_address(address)
        assert masking.secrets_of(address) == {canary}, address
        for text_with_it in (address, canary, repr(address), json.dumps(address), f"found {canary!r}"):
            assert not re.search("can.{0,4}ary", masking.mask(text_with_it)), (address, text_with_it)
        bare = without_secret(name, address)
        assert not masking.holds_secret(bare)
        assert masking.secrets_of(bare) == set()
        assert "can" not in bare
        assert without_secret(name, bare) == bare


# read otherwise than they were meant, or not at all
MISTAKEN = [
    "postgresql://etl:canary@one@db/sales",
    "postgresql://etl:canary/one@db/sales",
    "postgresql://etl:canary%FFone@db/sales",
    "postgresql://etl:canary@[db/sales",
    "postgresql://etl:canary@db/sales?nothing=x",
    "host=db password='canary",
    "host=db passwort=canary",
]
MISTAKEN_REDIS = [
    "redis://etl:canary#one@cache",
    "redis://etl:1234#canary@cache",
    "redis://etl:1234/canary@cache",
    "redis://etl:1234?canary@cache",
    "redis://:canary/one@cache",
    "canary://etl:canary@cache",
    "etl:canary@cache:6379",
    "redis://cache/0?db=canary",
]


@pytest.mark.security("M2")
@pytest.mark.parametrize("address", [*MISTAKEN, *MISTAKEN_REDIS])
def test_address_that_cannot_be_read_as_it_was_meant_is_refused_without_quoting_it(address: str) -> None:
    from headrace.local.addresses import dsn_parameters, environment
    from headrace.postgres.connection import connector
    from headrace.sources.redis import connect

    settings = Settings(redis_url=address) if address in MISTAKEN_REDIS else Settings(postgres_dsn=address)
    attempts: list[Callable[[], object]] = [lambda: environment(settings)]
    if address in MISTAKEN_REDIS:
        attempts = [lambda: connect(address, answer_bytes=1), *(attempts if masking.holds_secret(address) else [])]
    else:
        attempts += [connector(address, "test"), lambda: dsn_parameters(address)]
    for attempt in attempts:
        with pytest.raises(SettingError) as caught:
            attempt()
        shown = "".join(traceback.format_exception(caught.value))
        said = [line for line in shown.splitlines() if "canary" in line and "address" not in line]
        assert said == []
        assert "cannot be read; expected" in str(caught.value)


@pytest.mark.security("M2")
@pytest.mark.parametrize("value", ["canary-s3cret", "postgresql://etl:canary@db/sales", "host=db password=canary"])
def test_secret_in_place_of_the_name_of_its_file_is_refused_without_quoting_it(value: str) -> None:
    with pytest.raises(
        SettingError, match="HEADRACE_POSTGRES_DSN_FILE: the file that it names cannot be read"
    ) as caught:
        Settings.from_environment({"HEADRACE_POSTGRES_DSN_FILE": value})
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.security("M2")
def test_secret_in_the_address_of_airflow_is_refused_without_quoting_it() -> None:
    with pytest.raises(SettingError, match="HEADRACE_AIRFLOW_URL: found a user in it") as caught:
        Settings.from_environment({"HEADRACE_AIRFLOW_URL": "http://ops:canary@airflow:8080/x"})
    assert "canary" not in str(caught.value)


def test_address_that_cannot_be_read_is_masked_whole() -> None:
    masking.remember_address("postgresql://etl:canary@[db/sales")
    assert masking.mask("found postgresql://etl:canary@[db/sales") == "found ***"


def test_words_that_are_too_short_to_be_secrets_stay() -> None:
    for short in (None, "", "a", "pass"):
        masking.remember(short)
    assert masking.mask("a pass") == "a pass"


def test_secrets_are_masked_in_errors_also_after_pickling() -> None:
    masking.remember(SECRET)
    error = DatabaseError(f"postgres: {SECRET} was not taken")
    assert str(error) == "postgres: *** was not taken"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_secrets_are_masked_in_json_logs_and_their_tracebacks() -> None:
    masking.remember(SECRET)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("found %s", SECRET, extra={logs.FIELDS: {"field": SECRET}})
    document = json.loads(stream.getvalue())
    assert document["event"] == "found ***"
    assert document["field"] == "***"
    assert document["exception"].endswith("ValueError: ***")


def test_settings_remember_what_they_hold_and_do_not_show_it() -> None:
    environ = {
        "HEADRACE_POSTGRES_DSN": "postgresql://etl:canary-postgres@db/sales",
        "HEADRACE_DBT_DSN": "postgresql://builder:canary-dbt@db/sales",
        "HEADRACE_REDIS_URL": "redis://:canary-redis@cache",
        "HEADRACE_KAFKA_SASL_PASSWORD": "canary-sasl",
        "HEADRACE_KAFKA_SSL_PASSWORD": "canary-key",
    }
    settings = Settings.from_environment(environ)
    assert "canary" not in repr(settings)
    assert "canary" not in masking.mask(" ".join(environ.values()))
