"""Output to terminals and logs: without secrets, in visible characters only."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, overload

from headrace.escaping import visible, visible_json
from headrace.masking import mask


class OutputNotWritten(Exception):
    """What a command prints cannot be written: the disk is full."""


def shown(text: str, *, keep: str = "") -> str:
    """The text without secrets and with invisible characters escaped, except those in `keep`."""
    return visible(mask(text), keep=keep)


def say(text: str, *, keep: str = "", file: TextIO | None = None) -> None:
    """Print one line, to stdout unless `file` names another stream. Raises OutputNotWritten, as on a full disk."""
    _print(shown(text, keep=keep), file or sys.stdout)


def say_json(document: Any) -> None:
    """Print a document over several lines; the caller has masked errors in it. Raises OutputNotWritten, as `say`."""
    _print(json_text(document, indent=2), sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # `headrace ... | head`: the reader has enough
        raise
    except OSError as error:
        # what is buffered would fail again when the process ends; a stream of Airflow's has no file
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise OutputNotWritten(
            f"output: cannot be written: {error.strerror}; make room where it goes, and run the command again"
        ) from error


def complain(text: str) -> None:
    """Print one line to stderr."""
    say(text, file=sys.stderr)


def json_text(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON for a terminal: the same values, in visible characters; the caller has masked errors in it."""
    return visible_json(json.dumps(document, indent=indent, ensure_ascii=False))


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns, two blanks apart, each as wide as its widest cell; the rows are equally long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


class Quoted(Exception):
    """An error of other code: its type's name and its masked text."""


@overload
def quoted(error: BaseException) -> BaseException: ...
@overload
def quoted(error: None) -> None: ...
def quoted(error: BaseException | None) -> BaseException | None:
    """An error whose text and causes may be shown: the error itself if they already may."""
    if error is None:
        return None
    cause = quoted(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    text = shown(str(error), keep="\n")
    if text == str(error) and not isinstance(cause, Quoted):
        return error
    stand_in = Quoted(f"{type(error).__name__}: {text}").with_traceback(error.__traceback__)
    stand_in.__cause__ = cause
    return stand_in


def traceback_lines(text: str) -> str:
    """The indented lines of a traceback: an exception's message cannot imitate a log line."""
    return "\n".join(f"  | {shown(line)}" for line in mask(text).split("\n") if line.strip())
