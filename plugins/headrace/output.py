"""Output to terminals and logs: without secrets, in visible characters only."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, overload

from headrace.escaping import visible, visible_json
from headrace.masking import mask


def shown(text: str, *, keep: str = "") -> str:
    """The text without secrets and with invisible characters escaped, except those in `keep`."""
    return visible(mask(text), keep=keep)


def say(text: str, *, keep: str = "", file: TextIO | None = None) -> None:
    """Print one line, to stdout unless `file` names another stream."""
    print(shown(text, keep=keep), file=file, flush=True)


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
