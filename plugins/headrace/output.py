"""What leaves this process for people and logs: without secrets, and without anything but visible characters."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, overload

from headrace.escaping import visible, visible_json
from headrace.masking import mask


def shown(text: str, *, keep: str = "") -> str:
    """The text without secrets, every character visible, but for those in `keep`."""
    return visible(mask(text), keep=keep)


def say(text: str, *, keep: str = "", file: TextIO | None = None) -> None:
    """Print one line, to stdout unless `file` names another stream."""
    print(shown(text, keep=keep), file=file, flush=True)


def complain(text: str) -> None:
    """Print one line to stderr."""
    say(text, file=sys.stderr)


def json_text(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON for a terminal: the same values, every character visible; errors in it are masked already."""
    return visible_json(json.dumps(document, indent=indent, ensure_ascii=False))


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns, two blanks apart, each as wide as its widest cell; the rows are equally long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


class Quoted(Exception):
    """An error of other code, as its name and what it said."""


@overload
def quoted(error: BaseException) -> BaseException: ...
@overload
def quoted(error: None) -> None: ...
def quoted(error: BaseException | None) -> BaseException | None:
    """An error whose text, and those of its causes, may be shown: the error itself where they may be already."""
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
    """A traceback, each line set off: what an exception's message holds cannot pass for a line of the log."""
    return "\n".join(f"  | {shown(line)}" for line in mask(text).split("\n") if line.strip())
