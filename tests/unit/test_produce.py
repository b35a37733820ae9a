"""Lines of a file as keyed records."""

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.dataset import load_dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, FileSourceError
from headrace.formats import Avro
from headrace.publish.publishers import open_publisher, split_line
from headrace.sample.produce import check_lines
from headrace.settings import Settings

JOBS = load_dataset(Settings().datasets_dir, "jobs")
TELEMETRY = load_dataset(Settings().datasets_dir, "telemetry")


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "lines"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'job-1|{"a":1}', (b"job-1", b'{"a":1}')),
        (b'job-1|{"a":"x|y"}|z', (b"job-1", b'{"a":"x|y"}|z')),
        (b"job-1|", (b"job-1", b"")),
        (b"|value", (b"", b"value")),
        (b"\xff|\xfe", (b"\xff", b"\xfe")),
        (b'{"ID":"x|1","b":2}', (b"x|1", b'{"ID":"x|1","b":2}')),
        (b'  {"ID":5}', (b"5", b'  {"ID":5}')),
        (b'{"ID":null}', (None, b'{"ID":null}')),
        (b'{"b":2}', (None, b'{"b":2}')),
        (b"{broken", (None, b"{broken")),
        (b'{"ID":' * 100_000, (None, b'{"ID":' * 100_000)),
    ],
)
def test_line_gives_key_and_value(line: bytes, record: tuple[bytes | None, bytes]) -> None:
    assert split_line(line, "ID") == record


def test_line_of_a_dataset_without_a_key_has_none() -> None:
    assert split_line(b'{"ID":1}', None) == (None, b'{"ID":1}')


@pytest.mark.parametrize("bad", [b"", b"no separator", b"   "])
def test_lines_with_one_that_is_neither_form_name_it(bad: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, b"k|v\n" + bad + b"\nk|v\n")
    with pytest.raises(
        FileSourceError, match=r"line 2: found .*, expected key\|value or a JSON object; nothing was sent"
    ):
        check_lines(path, JOBS)
    assert check_lines(path, TELEMETRY) == 3  # a stream takes any line


def test_lines_of_any_ending_are_counted(tmp_path: Path) -> None:
    assert check_lines(written(tmp_path, b""), JOBS) == 0
    assert check_lines(written(tmp_path, b"a|b\r\nc|d"), JOBS) == 2


def test_lines_of_an_absent_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match="cannot be read: No such file"):
        check_lines(tmp_path / "absent", JOBS)


def test_lines_for_a_format_with_schemas_are_refused(tmp_path: Path) -> None:
    deployment = Deployment.from_settings(Settings(home=tmp_path))
    with pytest.raises(DatasetError, match=r"jobs: its format is avro.*use a producer of your own"):
        open_publisher(deployment, replace(JOBS, format=Avro()))
