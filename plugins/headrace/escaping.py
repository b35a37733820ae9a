"""Text of others, made visible: names, payloads and messages of other programs may hold anything.

What would move a terminal's cursor, begin a line of its own, reorder or hide text is shown as an escape.
"""

import re

# printable by Unicode's categories, yet shown as nothing (Default_Ignorable_Code_Point, and a blank pattern)
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# Airflow's page of a task's log opens and closes a group wherever a line contains one of these
_GROUP = re.compile(r":(?=:(?:end)?group::)")


def visible(text: str, *, keep: str = "") -> str:
    """The text in printable characters alone; others are escaped as in Python, but for those in `keep`. Idempotent."""
    if keep == "\n" and "\n" in text:  # line by line: most are printable, and megabytes of metrics are looked at
        return "\n".join(visible(line) for line in text.split("\n"))
    if not text.isprintable() or _BLANK.search(text):
        text = "".join(c if _is_shown(c) or c in keep else _escape(c) for c in text)
    return _GROUP.sub(r"\\x3a", text) if "group::" in text else text


def visible_json(text: str) -> str:
    """A JSON text that means the same, with every character that is not printable as JSON's own escape.

    Line feeds stay: JSON has them between values alone.
    """
    if text.isprintable() and not _BLANK.search(text):
        return text
    return "".join(c if _is_shown(c) or c == "\n" else _json_escape(c) for c in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() and not _BLANK.match(character)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
