"""Text from elsewhere, made visible: names, payloads and messages of other programs may contain any character.

Characters that move the cursor, start a line, reorder or hide text are shown as escapes.
"""

import re

# printable by Unicode's categories, but invisible (Default_Ignorable_Code_Point, and a blank pattern)
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# Airflow's log view opens and closes a group at a line that contains one of these
_GROUP = re.compile(r":(?=:(?:end)?group::)")


def visible(text: str, *, keep: str = "") -> str:
    """The text in printable characters; others are escaped as in Python, except those in `keep`. Idempotent."""
    if keep == "\n" and "\n" in text:  # line by line: most are printable, which is fast for megabytes of metrics
        return "\n".join(visible(line) for line in text.split("\n"))
    if not text.isprintable() or _BLANK.search(text):
        text = "".join(c if _is_shown(c) or c in keep else _escape(c) for c in text)
    return _GROUP.sub(r"\\x3a", text) if "group::" in text else text


def visible_json(text: str) -> str:
    """An equivalent JSON text in which every unprintable character is a JSON escape.

    Line feeds stay: JSON has them only between values.
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
