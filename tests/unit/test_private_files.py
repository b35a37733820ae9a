"""Whose files are trusted, who may read ours, and what a link or a FIFO in their place does: nothing."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from headrace.exceptions import SettingError
from headrace.local.home import locked
from headrace.private_files import check_home, close_to_others, make_folder, read_bounded, replaced_file
from headrace.settings import SECRET_BYTES_MAX, Settings
from tests.other_user import UID, as_other_user, only_as_root

HEADRACE = Path(sys.executable).with_name("headrace")


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the user's umask is."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _open_to_others(folder: Path) -> list[str]:
    return [str(path) for path in (folder, *folder.rglob("*")) if not path.is_symlink() and _mode(path) & 0o077]


@pytest.mark.usefixtures("umask")
def test_replaced_file_is_of_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "export"
    for content in (b"one", b"two"):
        with replaced_file(path) as file:
            file.write(content)
        assert (path.read_bytes(), _mode(path)) == (content, 0o600)
        path.chmod(0o644)
    assert _names(tmp_path) == ["export"]


def test_replaced_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replaced_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["export"]


@pytest.mark.security("U4")
def test_export_follows_no_link_and_waits_for_no_fifo(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "link").symlink_to("victim")
    os.mkfifo(tmp_path / "fifo")
    for name, kind in (("link", "link"), ("fifo", "FIFO")):
        done = _generate(tmp_path / name)
        assert (done.returncode, done.stderr) == (
            1,
            f"headrace: {tmp_path / name}: cannot be written: found a {kind}, expected a regular file; name another "
            "path\n",
        )
    (tmp_path / "jobs.partial").symlink_to("victim")  # a name that could be guessed
    assert _generate(tmp_path / "jobs").returncode == 0
    assert _mode(tmp_path / "jobs") == 0o600
    assert (tmp_path / "victim").read_text() == "kept"
    assert _names(tmp_path) == ["fifo", "jobs", "jobs.partial", "link", "victim"]


def _generate(out: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(HEADRACE), "generate", "jobs", "--records", "3", "--out", str(out)]
    return subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True, timeout=60, umask=0)


@pytest.mark.security("U5")
def test_secret_is_read_from_regular_files_of_bounded_size_alone(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()  # as Kubernetes mounts secrets
    (tmp_path / "..data" / "password").write_text("mounted\n")
    (tmp_path / "password").symlink_to("..data/password")
    (tmp_path / "at the limit").write_text("x" * SECRET_BYTES_MAX)
    (tmp_path / "large").write_text("x" * (SECRET_BYTES_MAX + 1))
    os.mkfifo(tmp_path / "fifo")

    def password(path: Path | str) -> str | None:
        environ = {"HEADRACE_HOME": str(tmp_path), "HEADRACE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / path)}
        return Settings.from_environment(environ).kafka_sasl_password

    assert password("password") == "mounted"
    assert password("at the limit") == "x" * SECRET_BYTES_MAX
    for path, reason in {
        "fifo": "found a FIFO, expected a regular file",
        "/dev/zero": "found a device, expected a regular file",
        "/dev/tty": "found a device, expected a regular file",
        "large": "it has more than 65,536 bytes",
        "..data": "Is a directory",
    }.items():
        expected = f"^HEADRACE_KAFKA_SASL_PASSWORD_FILE: {tmp_path / path} cannot be read: {reason}; name a file"
        with pytest.raises(SettingError, match=expected):
            password(path)


def test_file_of_proc_that_claims_to_be_empty_is_bounded_as_well() -> None:
    with pytest.raises(OSError, match=r"it has more than 1 bytes"):
        read_bounded(Path("/proc/self/status"), 1)


@pytest.mark.usefixtures("umask")
@pytest.mark.security("U2")
def test_home_and_what_is_made_in_it_is_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "above" / "home"
    with locked(home, lambda _: None) as held:
        held.remember("kafka", {"address": "127.0.0.1:1"})
        (held.path / "logs" / "a.log").touch()
        held.run(["/bin/sh", "-c", f"mkdir {home}/kafka; echo x > {home}/kafka/child"], doing="test", limit_s=5)
    assert _open_to_others(home) == []
    assert _mode(tmp_path / "above") & 0o022 == 0


@pytest.mark.security("U2")
def test_home_of_an_earlier_version_is_closed_to_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "kafka" / "data" / "jobs-0").mkdir(parents=True)
    (home / "kafka" / "data" / "jobs-0" / "0.log").touch()
    (home / "kafka" / "program").touch(0o755)
    (tmp_path / "foreign").touch()
    (home / "kafka" / "link").symlink_to(tmp_path / "foreign")
    for name in ("services.json", "lock"):
        (home / name).touch()
    home.chmod(0o755)
    (home / "kafka").chmod(0o755)
    before = _mode(tmp_path / "foreign")

    with locked(home, lambda _: None):
        pass

    # root's Postgres runs as another user, who passes through by its group
    assert [path for path in _open_to_others(home) if path != str(home)] == []
    assert _mode(home) == (0o710 if os.geteuid() == 0 else 0o700)
    assert _mode(home / "kafka" / "program") == 0o700
    assert _mode(tmp_path / "foreign") == before


def test_folder_that_holds_other_things_keeps_its_own_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "web").mkdir(0o755)
    with locked(tmp_path, lambda _: None):
        pass
    assert (_mode(tmp_path), _mode(tmp_path / "web"), _mode(tmp_path / "run")) == (0o755, 0o755, 0o700)


def test_close_to_others_ends_with_the_folder_so_that_a_kill_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    (folder / "file").touch(0o644)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "chmod", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            close_to_others(folder)
    assert _mode(folder) == 0o755
    close_to_others(folder)
    assert _open_to_others(folder) == []


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_make_folder_makes_parents_that_others_cannot_change(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert [_mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]


def _given_away(home: Path) -> str:
    home.mkdir()
    os.chown(home, UID, -1)
    return f"{home} belongs to uid {UID}, expected uid 0, who runs this; run as that user, or set HEADRACE_HOME"


def _link_of_another(home: Path) -> str:
    home.with_name("elsewhere").mkdir()
    home.symlink_to("elsewhere")
    os.chown(home, UID, -1, follow_symlinks=False)
    return f"{home} is a link of uid {UID}, expected uid 0"


def _parent_of_all(home: Path) -> str:
    home.mkdir()
    home.parent.chmod(0o777)
    return f"{home.parent}, above {home}, can be changed by every user, expected only by its owner; `chmod o-w"


def _of_all(home: Path) -> str:
    home.mkdir()
    home.chmod(0o1777)  # as /tmp
    return f"{home} can be changed by every user, expected only by its owner; `chmod o-w {home}`"


@pytest.mark.security("U3")
@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(_given_away, marks=only_as_root),
        pytest.param(_link_of_another, marks=only_as_root),
        _parent_of_all,
        _of_all,
    ],
)
def test_home_that_another_user_has_or_can_exchange_is_refused(arrange: Callable[[Path], str], tmp_path: Path) -> None:
    home = tmp_path / "above" / "home"
    home.parent.mkdir()
    expected = f"HEADRACE_HOME: {arrange(home)}"
    for attempt in (
        lambda: Settings.from_environment({"HEADRACE_HOME": str(home)}),
        lambda: locked(home, lambda _: None).__enter__(),
    ):
        with pytest.raises(SettingError) as caught:
            attempt()
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


@only_as_root
def test_home_of_this_user_below_a_shared_folder_and_one_of_root_are_taken() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed
        shared = Path(name)
        shared.chmod(0o1777)
        (shared / "of root").mkdir()
        (shared / "own").mkdir()
        os.chown(shared / "own", UID, -1)
        homes = [shared / name for name in ("of root", "own", "absent")]
        for home in homes:
            assert as_other_user(partial(check_home, home)) is None
