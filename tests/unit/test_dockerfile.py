"""The Dockerfile, and what .dockerignore sends to it."""

import re

from tests.support.compose_file import DOCKERFILE, ROOT


def test_dockerfile_installs_the_lock_with_hashes_and_runs_without_root() -> None:
    instructions = DOCKERFILE.replace("\\\n", "")
    installs = re.findall(r"^RUN (pip install .*)$", instructions, re.MULTILINE)
    assert len(installs) == 3
    for install, lock in zip(installs, ("requirements.txt", "requirements-celery.txt"), strict=False):
        assert "--no-deps --require-hashes --only-binary :all:" in install and lock in install
    assert "--no-deps" in installs[2] and "--no-build-isolation" in installs[2]
    assert "--editable" in installs[2], "a copy in site-packages would have no SQL files and another ROOT"
    assert re.findall(r"^USER (\S+)$", instructions, re.MULTILINE)[-1:] == ["headrace"]
    base = re.findall(r"^ARG PYTHON_IMAGE=(\S+)\nFROM \$\{PYTHON_IMAGE}$", instructions, re.MULTILINE)
    assert len(base) == 1 and re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base[0])


def test_dockerignore_sends_what_the_dockerfile_copies_and_no_secret() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = {
        source
        for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert rules[0] == "*", "everything is left out that is not named"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
