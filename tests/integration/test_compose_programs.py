"""What docker-compose.yml starts, started: its command lines and its packages with the real programs."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import yaml
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from headrace.local import valkey

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.security("S4")
def test_valkey_asks_for_the_password_that_its_command_line_does_not_show(tmp_path: Path) -> None:
    command = [word.replace("$$", "$") for word in SERVICES["valkey"]["command"]]
    assert SERVICES["valkey"]["environment"].keys() == {"REDISCLI_AUTH"}
    (tmp_path / "valkey-server").symlink_to(valkey.binary())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command[2] = command[2].replace("valkey-server ", f"valkey-server --bind 127.0.0.1 --port {port} ")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "REDISCLI_AUTH": "hunter-22.~_"}
    server = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        client = redis.Redis(port=port, password="hunter-22.~_", retry=Retry(ConstantBackoff(0.05), 200))
        assert client.ping() and client.config_get("appendonly") == {"appendonly": "yes"}
        assert "hunter" not in " ".join(psutil.Process(server.pid).cmdline())
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
    finally:
        server.terminate()
        server.wait(30)


def test_locked_celery_is_one_that_the_provider_can_import(tmp_path: Path) -> None:
    """A newer Celery is not: the provider's lower bounds let the lock take it."""
    environ = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"}
    load = "from airflow.executors.executor_loader import ExecutorLoader; ExecutorLoader.init_executors()"
    done = subprocess.run([sys.executable, "-c", load], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
