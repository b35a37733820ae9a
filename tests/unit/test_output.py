"""What leaves the process: no character that is not visible, whoever wrote it."""

import errno
import io
import json
import logging
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace import logs
from headrace.cli import main
from headrace.escaping import visible, visible_json
from headrace.monitor.metrics import exposition
from headrace.monitor.problems import AlertThresholds, find_problems_by
from headrace.output import OutputNotWritten, Quoted, aligned, json_text, quoted, say, traceback_lines
from headrace.sample.case_answers import render
from tests.support.statuses import dataset, status

ODD = {
    "\x1b[2J": r"\x1b[2J",
    "\x9b31m": r"\x9b31m",
    "a\rb\nc": r"a\rb\nc",
    "\x7f\x00\b": r"\x7f\x00\x08",
    "\u202etxt.exe\u2066": r"\u202etxt.exe\u2066",
    "a\u2028b\u2029c\x85d": r"a\u2028b\u2029c\x85d",
    "a\u200bb\ufeffc\u00add": r"a\u200bb\ufeffc\xadd",
    "\u3164\u2800\ufe0f": r"\u3164\u2800\ufe0f",
    "\U000e0041": r"\U000e0041",
    "\ud800": r"\ud800",
    "::group::x": r"\x3a:group::x",
    "x::endgroup::": r"x\x3a:endgroup::",
    "::::group::": r"::\x3a:group::",
}
ALL = "".join(ODD)


@pytest.mark.parametrize("text", ODD)
def test_text_of_others_is_visible(text: str) -> None:
    assert visible(text) == ODD[text]
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize(
    "text", ["", "jobs[2]: found 1", "Zürich 東京 \N{GRINNING FACE}", r"C:\x1b", "`a` 'b' <c>", "group::x"]
)
def test_text_that_is_visible_stays(text: str) -> None:
    assert visible(text) == text


def test_characters_that_are_kept_stay() -> None:
    assert visible("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_json_is_the_same_document_in_visible_characters() -> None:
    document = {ALL: [ALL, 1, None, "ü"], "at": {"x": "\U000e0041"}}
    text = json_text(document, indent=2)
    assert text.replace("\n", "").isprintable()
    assert "ü" in text
    assert json.loads(text) == document
    assert visible_json('{"a": 1}') == '{"a": 1}'


def test_line_that_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"file {ALL}")
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out[:-1].isprintable()


@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter()])
def test_log_is_of_visible_characters_tracebacks_included(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("found %s", ALL, extra={logs.FIELDS: {"field": ALL, ALL: [ALL]}})
    try:
        raise ValueError(f"x\n2026-03-01 forged line {ALL}")
    except ValueError:
        logger.exception("oh")
    first, *rest = stream.getvalue().splitlines()
    assert first.isprintable()
    assert "".join(rest).isprintable()
    assert not any(line.startswith("2026-03-01 forged") for line in rest)
    if isinstance(formatter, logs.JsonFormatter):
        decoded = json.loads(first)
        assert decoded["event"] == f"found {visible(ALL)}"
        assert decoded["field"] == visible(ALL)


def test_command_line_without_handlers_logs_warns_and_ends_in_visible_characters(tmp_path: Path) -> None:
    script = (
        "import logging, warnings\nfrom headrace import logs\nlogs.guard()\n"
        "odd = '\\x1b[2J\\x9b\\u202e'\nlogging.getLogger('another.library').warning('found %s', odd)\n"
        "warnings.warn(odd)\nimport threading\n"
        "def fail():\n    raise ValueError(odd)\n"
        "thread = threading.Thread(target=fail)\nthread.start()\nthread.join()\n"
        "raise ValueError('x\\nheadrace: forged' + odd)\n"
    )
    environ = {"PYTHONPATH": str(Path(__file__).parents[2] / "plugins"), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\\x1b[2J\\x9b\\u202e") >= 6
    assert done.stderr.replace("\n", "").isprintable()
    assert not any(line.startswith("headrace: forged") for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    "arguments", [["drain", "x\x1b[2J"], ["status", "a\x1b[2J"], ["drain", "jobs", "--parallel", "\x1b[2J"]]
)
def test_command_line_quotes_its_arguments_in_visible_characters(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, arguments, env={"HEADRACE_HOME": str(tmp_path)})
    assert done.exit_code in (1, 2)
    assert "\\x1b[2J" in done.output
    assert done.output.replace("\n", "").isprintable()


def test_metrics_and_status_document_are_of_visible_characters() -> None:
    odd = f"a{ALL}".replace("\ud800", "")  # Postgres has none
    overview = find_problems_by(status(dataset(odd, topic=odd, last_error=odd)), {odd: AlertThresholds()})
    assert exposition(overview).decode(errors="strict").replace("\n", "").isprintable()
    document = overview.document()
    assert document["datasets"][0]["topic"] == visible(odd)
    assert document["problems"][0]["text"].isprintable()


def test_answers_are_tables_whose_cells_are_of_one_line() -> None:
    from headrace.sample.case_answers import _as_text

    table = render({"top_users": [_as_text({"userid": 1, "servicename": "x\n::group::y\x1b"})]})
    assert table.splitlines() == ["top_users:", "userid  servicename", r"1       x\n\x3a:group::y\x1b"]


def test_error_of_other_code_is_quoted_with_its_causes_and_where_it_was() -> None:
    try:
        try:
            raise KeyError("::group::\x1b[2J")
        except KeyError as cause:
            raise RuntimeError("plain") from cause
    except RuntimeError as error:
        stand_in = quoted(error)
    assert isinstance(stand_in, Quoted)
    text = "".join(traceback.format_exception(stand_in))
    assert text.replace("\n", "").isprintable()
    assert "RuntimeError: plain" in text
    assert "::group::\x1b" not in text
    assert "test_output.py" in text
    plain = ValueError("plain")
    assert quoted(plain) is plain
    assert quoted(None) is None


def test_traceback_lines_are_set_off() -> None:
    assert traceback_lines("a\n  b\n\nc\x1b") == "  | a\n  |   b\n  | c\\x1b"


def test_aligned_pads_each_column_to_its_widest_cell_and_leaves_no_blanks_at_the_end() -> None:
    rows = [("a", "count", "note"), ("longer", "1", ""), ("b", "1,000", "x")]
    assert list(aligned(rows)) == ["a       count  note", "longer  1", "b       1,000  x"]
    assert list(aligned([])) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("arguments", [["datasets"], ["datasets", "--json"], ["describe", "jobs"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "headrace: output: cannot be written: No space left on device; make room where it goes, "
        "and run the command again\n"
    )


class FullStream(io.StringIO):
    """A stream without a file, as Airflow's, whose disk is full."""

    def write(self, text: str, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_stream_without_a_file_that_cannot_be_written_says_the_same() -> None:
    with pytest.raises(OutputNotWritten, match="output: cannot be written: No space left on device; make room"):
        say("jobs: nothing new", file=FullStream())
