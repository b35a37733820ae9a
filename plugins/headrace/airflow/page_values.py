"""Stored bytes as HTML: text as it is, other bytes as a hexdump, the beginning of large ones."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headrace.escaping import visible

TEXT_LENGTH_MAX = 64 * 1024
HEXDUMP_BYTES = 2048
TAB = "\t"


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A key, a value or a header for a page. kind: what the bytes are, in words."""

    kind: str
    html: Markup
    is_cut: bool


def shown_value(raw: bytes | None, size: int | None) -> ShownValue | None:
    """The stored bytes, of which `raw` is the beginning; None for null.

    Text is UTF-8; its invisible characters are escaped, line feeds and tabs are kept.
    """
    if raw is None or size is None:
        return None
    text = _text(raw, is_whole=len(raw) == size)
    if text is None:
        shown = raw[:HEXDUMP_BYTES]
        return ShownValue(f"{size:,} bytes that are not text", hexdump(shown), len(shown) < size)
    cut = text[:TEXT_LENGTH_MAX]
    lines = Markup("\n").join(escape(visible(line, keep=TAB)) for line in cut.split("\n"))
    return ShownValue(f"{size:,} bytes of text", lines, len(raw) < size or len(cut) < len(text))


def hexdump(raw: bytes) -> Markup:
    """Sixteen bytes a line: offset, hexadecimal, ASCII."""
    lines = []
    for start in range(0, len(raw), 16):
        row = raw[start : start + 16]
        printable = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(escape(f"{start:08x}  {row.hex(' '):<47}  |{printable}|"))
    return Markup("\n").join(lines)


def shown_headers(stored: Sequence[Mapping[str, str | None]] | None) -> list[tuple[str, str]]:
    """The names and values of stored headers as text; those that are not text as hexadecimal."""
    return [(_part(each, "key", "key_base64"), _part(each, "value", "base64")) for each in stored or ()]


def _part(header: Mapping[str, str | None], name: str, encoded_name: str) -> str:
    encoded = header.get(encoded_name)
    if encoded is not None:
        return f"0x{b64decode(encoded).hex()}"
    found = header.get(name)
    return "null" if found is None else found


def _text(raw: bytes, *, is_whole: bool) -> str | None:
    """The bytes as text; a beginning may end within a character. None if they are other bytes."""
    for missing in range(1 if is_whole else 4):
        try:
            text = raw[: len(raw) - missing].decode()
        except UnicodeDecodeError:
            continue
        return None if "\0" in text else text
    return None
