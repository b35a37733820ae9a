"""Postgres with TLS: loader and dbt verify its certificate, and a client with another CA is refused."""

import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.local.addresses import environment
from headrace.monitor.status import read_status
from headrace.settings import Settings
from tests.support.certificates import Authority, Certificate
from tests.support.stage import Stage

PYTHON = (sys.executable, "-c")


@pytest.fixture(scope="module")
def authority(session_home: Path) -> Authority:
    """Who signs the server's certificate."""
    return Authority(session_home / "certificates")


class TlsProxy:
    """Speaks TLS with clients as Postgres does (PostgreSQL: SSLRequest) and hands their bytes to the server.

    The embedded server is built without TLS; to a client it makes no difference who decrypts.
    """

    REQUEST = struct.pack(">ii", 8, 80877103)

    def __init__(self, port: int, signed: Certificate) -> None:
        self._port = port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(signed.certificate, signed.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.encrypted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if client.recv(8, socket.MSG_WAITALL) != self.REQUEST:
                return
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", self._port)) as server,
            ):
                self.encrypted += 1
                while True:
                    ready = [inside] if inside.pending() else select.select([inside, server], [], [])[0]
                    for source, target in ((inside, server), (server, inside)):
                        if source in ready:
                            data = source.recv(65_536)
                            if not data:
                                return
                            target.sendall(data)


@pytest.fixture(scope="module")
def proxy(postgres_dsn: str, authority: Authority) -> Iterator[TlsProxy]:
    """The session's Postgres behind TLS."""
    made = TlsProxy(int(str(conninfo_to_dict(postgres_dsn)["port"])), authority.sign("postgres", "127.0.0.1"))
    yield made
    made.close()


@pytest.fixture
def verified(database: str, proxy: TlsProxy, authority: Authority, tmp_path: Path) -> Stage:
    """The dataset users in a database that is reached with sslmode=verify-full."""
    (tmp_path / "users.py").write_text((Settings().datasets_dir / "users.py").read_text())
    dsn = with_parameters(database, port=str(proxy.port), sslmode="verify-full", sslrootcert=str(authority.path))
    deployment = Deployment.from_settings(Settings(home=tmp_path, postgres_dsn=dsn, datasets_dir=tmp_path))
    initialise(deployment)
    return Stage(deployment, dsn)


def with_parameters(dsn: str, **parameters: str) -> str:
    return make_conninfo("", **conninfo_to_dict(dsn) | parameters)


def test_server_that_proves_itself_is_loaded_into_over_tls(verified: Stage, proxy: TlsProxy) -> None:
    before = proxy.encrypted
    load_file(verified.deployment, "users")
    assert proxy.encrypted > before
    assert verified.value("select count(*) from staging.users") == 21_467


def test_dbt_started_by_hand_verifies_the_server_too(verified: Stage, tmp_path: Path, authority: Authority) -> None:
    """`headrace env` names the certificate to any client of libpq, as dbt's driver is one."""
    printed = environment(verified.deployment.settings)
    assert printed["PGSSLMODE"] == "verify-full"
    assert printed["PGSSLROOTCERT"] == str(authority.path)
    stranger = Authority(tmp_path / "stranger", "stranger")
    script = (
        "import os, psycopg2; e = os.environ; psycopg2.connect(host=e['HEADRACE_DBT_HOST'], "
        "port=e['HEADRACE_DBT_PORT'], user=e['HEADRACE_DBT_USER'], dbname=e['HEADRACE_DBT_DBNAME'])"
    )
    for changed, status in (({}, 0), ({"PGSSLROOTCERT": str(stranger.path)}, 1)):
        environ = {"PATH": os.defpath, **printed, **changed}
        done = subprocess.run([*PYTHON, script], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("certificate verify failed" in done.stderr) is bool(status)


def test_server_that_proves_nothing_is_refused_in_one_line(verified: Stage, database: str, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger", "stranger")
    plain = str(conninfo_to_dict(database)["port"])
    cases = [
        ({"port": plain}, "server does not support SSL, but SSL was required"),
        ({"sslrootcert": str(stranger.path)}, "certificate verify failed"),
        ({"host": "localhost"}, 'server certificate for .* does not match host name "localhost"'),
        ({"sslrootcert": str(tmp_path / "absent.pem")}, "root certificate file .* does not exist"),
    ]
    for changed, said in cases:
        dsn = with_parameters(verified.dsn, **changed)
        settings = Settings(home=tmp_path, postgres_dsn=dsn)
        with pytest.raises(DatabaseError) as caught:
            read_status(Deployment.from_settings(settings).connect("test"))
        assert re.search(said, str(caught.value)), caught.value
        assert "correct sslmode or sslrootcert in HEADRACE_POSTGRES_DSN" in str(caught.value)
        assert "\n" not in str(caught.value)
    load_file(verified.deployment, "users")
