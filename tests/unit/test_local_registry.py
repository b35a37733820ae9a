"""The registry's archive is the pinned one, or nothing is run from it."""

import hashlib
import re
from pathlib import Path

import pytest

from headrace.exceptions import LocalServiceError
from headrace.local import registry
from headrace.local.home import Home

PLACE = "io/apicurio/app/1/app-1-all.tar.gz"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # no cache of this machine's
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home", -1)


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    path = tmp_path / "registry.sha256"
    path.write_text(f"{hashlib.sha256(b'released').hexdigest()}  {PLACE}\n")
    return path


def serve(content: bytes | Exception, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have Maven Central serve this; returns where it was put."""
    served: list[Path] = []

    def download(repository: Path) -> Path:
        if isinstance(content, Exception):
            raise content
        path = repository / PLACE
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        served.append(path)
        return path

    monkeypatch.setattr(registry, "download", download)
    return served


def test_archive_is_downloaded_once_and_again_where_it_was_changed(
    home: Home, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, said = serve(b"released", monkeypatch), list[str]()
    for _ in range(2):
        assert registry.archive(home, said.append, pins).read_bytes() == b"released"
    assert len(served) == len(said) == 1
    served[0].write_bytes(b"changed")
    assert registry.archive(home, said.append, pins).read_bytes() == b"released"
    assert len(served) == 2


def test_archive_in_mavens_cache_is_used_where_it_is_the_pinned_one(
    home: Home, pins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(b"released", monkeypatch)
    cached = tmp_path / "nobody" / ".m2" / "repository" / PLACE
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"released")
    assert registry.archive(home, print, pins) == cached
    assert not served


def test_archive_that_is_not_the_released_one_is_refused_and_removed(
    home: Home, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(b"another", monkeypatch)
    found, expected = (hashlib.sha256(content).hexdigest() for content in (b"another", b"released"))
    with pytest.raises(LocalServiceError, match=f"found SHA-256 {found}, expected {expected}; nothing was run"):
        registry.archive(home, lambda _line: None, pins)
    assert not served[0].exists()


def test_archive_that_cannot_be_had_names_the_remedies(home: Home, pins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(OSError("no route"), monkeypatch)
    with pytest.raises(LocalServiceError, match=r"cannot be had \(no route\).*set HEADRACE_REGISTRY_URL"):
        registry.archive(home, lambda _line: None, pins)


def test_archive_that_is_pinned_is_of_the_version_that_is_asked_for() -> None:
    line = registry.PINS.read_text().strip()
    place = f"{registry.GROUP.replace('.', '/')}/{registry.NAME}/{registry.VERSION}/{registry.NAME}-{registry.VERSION}"
    assert re.fullmatch(rf"[0-9a-f]{{64}}  {re.escape(place)}-all\.tar\.gz", line)
