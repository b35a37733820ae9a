"""The service init of docker-compose.yml: its script, run with stand-ins for the commands that it calls."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.compose_file import ENV_EXAMPLE, REQUIRED, SERVICES, environment


def run_init(
    tmp_path: Path, secrets: dict[str, str], failing: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run init's script with stand-ins for its commands; the second value is what it called."""
    bash = shutil.which("bash")
    assert bash
    calls = tmp_path / "calls"
    calls.touch()
    for name in ("python", "airflow", "headrace"):
        stand_in = tmp_path / name
        stand_in.write_text(f'#!{bash}\necho {name} "$@" >> {calls}\nexit {int(name == failing)}\n')
        stand_in.chmod(0o755)
    _, options, script = SERVICES["init"]["command"]
    environ = dict.fromkeys(environment("init"), "secret") | secrets | {"PATH": f"{tmp_path}"}
    done = subprocess.run(
        [bash, options, script.replace("$$", "$")], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    return done, calls.read_text().splitlines()


def test_init_with_secrets_prepares_databases_in_order(tmp_path: Path) -> None:
    done, calls = run_init(tmp_path, {})
    assert (done.returncode, done.stderr) == (0, "")
    assert calls == ["python -", "airflow db migrate", "headrace init"]


@pytest.mark.parametrize(("failing", "called"), [("python", 1), ("airflow", 2), ("headrace", 3)])
def test_init_stops_at_the_step_that_fails(tmp_path: Path, failing: str, called: int) -> None:
    done, calls = run_init(tmp_path, {}, failing)
    assert done.returncode == 1
    assert len(calls) == called


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (variable, name)
        for name, value in environment("init").items()
        for variable in [REQUIRED.fullmatch(value)]
        if variable and name != "DBT_ENV_SECRET_HEADRACE_PASSWORD"  # POSTGRES_PASSWORD again
    ],
)
def test_init_with_a_placeholder_refuses_before_any_change(tmp_path: Path, variable: re.Match[str], name: str) -> None:
    placeholder = re.search(rf"^{variable[1]}=(.*)$", ENV_EXAMPLE, re.MULTILINE)
    assert placeholder
    done, calls = run_init(tmp_path, {name: placeholder[1]})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: found the placeholder of .env.example")
    assert calls == []


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "VALKEY_PASSWORD"])
@pytest.mark.parametrize("password", ["p@ss", "a/b", "50%", "a b", "a#b"])
def test_init_with_a_password_that_breaks_an_address_refuses(tmp_path: Path, name: str, password: str) -> None:
    done, calls = run_init(tmp_path, {name: password})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: found a character that an address cannot hold")
    assert calls == []


def test_init_code_in_python_compiles() -> None:
    script = SERVICES["init"]["command"][2]
    blocks = re.findall(r"python - <<'END'\n(.*?)\nEND\n", script, re.DOTALL)
    assert len(blocks) == 1
    compile(blocks[0], "init", "exec")
    for service in SERVICES.values():
        if service["healthcheck"].get("test", [])[:3] == ["CMD", "python", "-c"]:
            compile(service["healthcheck"]["test"][3], "healthcheck", "exec")
