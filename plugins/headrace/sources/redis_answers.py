"""Answers of a Redis server within a size limit.

XRANGE counts entries, and XINFO STREAM returns the first and the last one: neither can be limited in bytes. redis-py
holds a whole answer. Here bytes above the limit are read, counted and dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import SEEK_CUR
from typing import Any

import redis
from redis import _parsers
from redis.exceptions import ConnectionError, InvalidResponse

PART_BYTES = 64  # Python's memory for a text besides its bytes; bounds.py names the same number
SMALL_BYTES = 64  # a shorter text is always kept: ids, and XINFO's names
LIST_MAX = 1_024  # a list's first elements are always kept, each small or a placeholder
PIECE_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024

_RESP2Parser: Any = _parsers._RESP2Parser  # internal to redis-py, like all its parsers


@dataclass(frozen=True, slots=True)
class Oversized:
    """The placeholder of a text or list above the limit: its bytes, and PART_BYTES for each of its parts."""

    bytes: int


def client(url: str, limit: int, **options: Any) -> "redis.Redis":
    """A client whose answers keep at most `limit` bytes; ValueError for an invalid URL.

    Entries are lists of fields as sent: redis-py's dictionaries lose repeated fields.
    """

    class Parser(BoundedParser):
        answer_bytes = limit

    options |= {"protocol": 2, "parser_class": Parser, "socket_read_size": READ_BYTES, "retry": None}
    made = redis.Redis.from_url(url, **options)
    for command in ("XRANGE", "XREAD"):
        made.set_response_callback(command, lambda response, **_: response)
    made.set_response_callback("XINFO STREAM", lambda response, **_: _facts(response))
    return made


def bytes_of(fields: Any) -> int:
    """The memory of an entry's fields: their bytes, and PART_BYTES for each name and each value."""
    if isinstance(fields, Oversized):
        return fields.bytes
    return sum(part.bytes if isinstance(part, Oversized) else len(part) + PART_BYTES for part in fields)


def is_whole(fields: Any) -> bool:
    """Whether all fields of an entry were kept."""
    return isinstance(fields, list) and not any(isinstance(part, Oversized) for part in fields)


def _facts(response: Any) -> Mapping[str, Any]:
    if not isinstance(response, list):
        return response  # type: ignore[no-any-return]  # an error
    return {name.decode(): value for name, value in zip(response[::2], response[1::2], strict=True)}


class BoundedParser(_RESP2Parser):  # type: ignore[misc]
    """redis-py's parser, which keeps only the first `answer_bytes` of each answer."""

    answer_bytes: int
    _left = 0

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer."""
        self._left = self.answer_bytes
        return super().read_response(*arguments, **options)

    def _read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        line = self._buffer.readline(**options)
        if not line:
            raise ConnectionError("the connection was closed by the server")
        return self._fetched(line, options)

    def _fetched(self, line: bytes, options: Any) -> Any:
        """Read the rest of an answer after its first line."""
        kind, text = line[:1], line[1:]
        if kind == b"-":
            error = self.parse_error(text.decode("utf-8", errors="replace"))
            if isinstance(error, ConnectionError):
                raise error
            return error
        if kind == b"+":
            return text
        if kind == b":":
            return int(text)
        if kind not in (b"$", b"*"):
            raise InvalidResponse(f"Protocol Error: {line[:60]!r}")
        size = int(text)
        if size < 0:
            return None
        return self._text(size, options) if kind == b"$" else self._list(size, options)

    def _text(self, size: int, options: Any) -> Any:
        self._forget()
        cost = size + PART_BYTES
        is_kept = cost <= self._left or size <= SMALL_BYTES
        self._left -= cost
        if is_kept:
            return self._buffer.read(size, **options)
        self._left = -1  # nothing after a gap is kept
        self._pass_over(size, options)
        self._buffer.read(0, **options)  # the two bytes that end a text
        return Oversized(cost)

    def _pass_over(self, size: int, options: Any) -> None:
        """Read bytes that are not kept."""
        held = self._buffer._buffer
        while size:
            taken = len(held.read(size))
            size -= taken
            self._forget()
            if size:
                self._buffer._read_from_socket(**options)

    def _list(self, count: int, options: Any) -> Any:
        found: list[Any] = []
        cost, is_kept = 0, True
        held, readline = self._buffer._buffer, self._buffer._buffer.readline
        for index in range(count):
            line = readline()
            # most texts are already in the buffer and are read in place
            if (
                line[:1] == b"$"
                and line[-1:] == b"\n"
                and (size := int(line[1:-2])) + PART_BYTES <= self._left
                and size >= 0
            ):
                text = held.read(size + 2)
                if len(text) == size + 2:
                    self._left -= size + PART_BYTES
                    cost += size + PART_BYTES
                    found.append(text[:-2])
                    continue
                held.seek(-len(text), SEEK_CUR)
            held.seek(-len(line), SEEK_CUR)
            element = self._read_response(True, **options)
            cost += bytes_of([element]) if isinstance(element, bytes | Oversized) else 0
            if index < LIST_MAX or self._left >= 0:
                found.append(element)
            else:
                is_kept = False
                found.clear()
        return found if is_kept else Oversized(cost)

    def _forget(self) -> None:
        """Drop the bytes that were read: redis-py's buffer keeps an answer until its end."""
        held = self._buffer._buffer
        at = held.tell()
        if at >= PIECE_BYTES:
            rest = held.read()
            held.seek(0)
            held.truncate()
            held.write(rest)
            held.seek(0)
