"""Dead letters as text for a terminal and as JSON for programs."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from psycopg import Connection

from headrace.escaping import visible, visible_json
from headrace.postgres.acknowledgements import Acknowledgement
from headrace.postgres.checkpoints import origin_texts
from headrace.postgres.dead_letter_pages import DeadLetter, DeadLetterOverview, DeadLetterSelection, pages
from headrace.times import record_time

HEXDUMP_BYTES = 1024
_PLAIN = re.compile(rb"[ -~]*\n")


def overview_document(overview: DeadLetterOverview, known: Sequence[Acknowledgement] = ()) -> dict[str, Any]:
    """Counts by reason, the newest dead letters and acknowledgements, as JSON types."""
    return asdict(overview) | {"acknowledgements": [acknowledgement_document(each) for each in known]}


def acknowledgement_document(known: Acknowledgement) -> dict[str, Any]:
    """An acknowledgement as JSON types."""
    return asdict(known) | {"acknowledged_at": known.acknowledged_at.isoformat(timespec="milliseconds")}


def acknowledgement_line(known: Acknowledgement) -> str:
    """An acknowledgement as one line."""
    of_reason = "" if known.reason is None else f" of reason {known.reason}"
    actor = visible(known.acknowledged_by)
    return (
        f"{known.dataset}: {known.dead_letters} dead letters{of_reason} acknowledged by {actor} "
        f"at {known.acknowledged_at:%Y-%m-%d %H:%M} UTC: {visible(known.why)}"
    )


def overview_lines(
    overview: DeadLetterOverview, known: Sequence[Acknowledgement] = (), *, publishes: bool
) -> Iterator[str]:
    """The same as lines of text; publishes: whether the dataset has a dead-letter topic."""
    if not overview.reasons:
        yield f"{overview.dataset}: no dead letters"
        return
    dead, replayed = sum(r.dead for r in overview.reasons), sum(r.replayed for r in overview.reasons)
    waiting = f"; {overview.unpublished} not yet published" if publishes else ""
    yield f"{overview.dataset}: {dead} dead letters, {replayed} more were replayed{waiting}"
    width = max(len(r.reason) for r in overview.reasons)
    for r in overview.reasons:
        counts = ((r.replayed, "replayed"), (r.acknowledged, "acknowledged"))
        yield f"  {r.reason:<{width}} {r.dead:>9}" + "".join(f"   {n} {word}" for n, word in counts if n)
    yield from map(acknowledgement_line, known)
    if overview.newest:
        yield "the newest, by generation:partition:offset"
    for line in overview.newest:
        path = f" at {visible(line.json_path)}" if line.json_path else ""
        coordinate = f"{line.generation}:{line.partition}:{line.offset}{f' ({line.topic})' if line.topic else ''}"
        yield f"  {coordinate:<14} {line.reason}{path}: {visible(line.detail)}"


def json_lines(connection: Connection[Any], selection: DeadLetterSelection) -> Iterator[bytes]:
    """Each selected dead letter as a line of JSON, in one snapshot; memory holds one page."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        topics = origin_texts(connection, selection.dataset)
        for page in pages(connection, selection):
            for dead_letter in page:
                topic = topics.get((dead_letter.generation, dead_letter.partition))
                line = orjson.dumps(dead_letter_document(dead_letter, topic), option=orjson.OPT_APPEND_NEWLINE)
                yield line if _PLAIN.fullmatch(line) else visible_json(line.decode()).encode()


def dead_letter_document(dead_letter: DeadLetter, topic: str | None = None) -> dict[str, Any]:
    """A dead letter as JSON types: `key` and `value` are text, or base64 as `key_base64` and `value_base64`.

    topic: and its partition, of a dataset of several topics.
    """
    at = record_time(dead_letter.timestamp)
    return {
        "dataset": dead_letter.dataset,
        "generation": dead_letter.generation,
        "partition": dead_letter.partition,
        "offset": dead_letter.offset,
        **({} if topic is None else {"topic": topic}),
        "timestamp": None if at is None else at.isoformat(timespec="milliseconds"),
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "json_path": dead_letter.json_path,
        **_text_or_base64("key", dead_letter.key),
        **_text_or_base64("value", dead_letter.value),
        "headers": dead_letter.stored_headers or [],
        "masked": dead_letter.masked,
        "batch_id": str(dead_letter.batch_id),
        "replayed_by": None if dead_letter.replayed_by is None else str(dead_letter.replayed_by),
    }


def dead_letter_lines(dead_letter: DeadLetter, topic: str | None = None) -> Iterator[str]:
    """A complete dead letter as lines of text: all bytes of its key and its value."""
    at = record_time(dead_letter.timestamp)
    yield (
        f"{dead_letter.dataset}[{dead_letter.partition}] offset {dead_letter.offset} "
        f"of generation {dead_letter.generation}"
    )
    if topic is not None:
        yield f"topic     {topic}"
    yield f"time      {'none' if at is None else at.isoformat(sep=' ', timespec='milliseconds')}"
    yield f"reason    {dead_letter.reason}" + (f" at {visible(dead_letter.json_path)}" if dead_letter.json_path else "")
    yield f"detail    {visible(dead_letter.detail)}"
    yield f"batch     {dead_letter.batch_id}" + (
        f", replayed by {dead_letter.replayed_by}" if dead_letter.replayed_by else ""
    )
    if dead_letter.masked:
        yield f"masked    {visible(', '.join(dead_letter.masked))}"
    for name, value in dead_letter.headers:
        yield f"header    {visible(name) if isinstance(name, str) else _in_a_line(name)} = {_in_a_line(value)}"
    yield from _body("key", dead_letter.key)
    yield from _body("value", dead_letter.value)


def _text_or_base64(name: str, raw: bytes | None) -> dict[str, str | None]:
    if raw is None:
        return {name: None}
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(raw).decode()}


def _in_a_line(raw: bytes | None) -> str:
    if raw is None:
        return "null"
    text = _terminal_text(raw)
    return f"base64 {b64encode(raw).decode()}" if text is None or "\n" in text else text


def _body(name: str, raw: bytes | None) -> Iterator[str]:
    if raw is None:
        yield f"{name:<9} null"
        return
    text = _terminal_text(raw)
    if text is not None:
        yield f"{name:<9} {len(raw)} bytes of text"
        yield text
        return
    yield f"{name:<9} {len(raw)} bytes that are not plain text; in base64:"
    yield b64encode(raw).decode()
    for start in range(0, min(len(raw), HEXDUMP_BYTES), 16):
        row = raw[start : start + 16]
        printable = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<47}  |{printable}|"
    if len(raw) > HEXDUMP_BYTES:
        yield f"... and {len(raw) - HEXDUMP_BYTES} bytes more"


def _terminal_text(raw: bytes) -> str | None:
    """The bytes as text if a terminal shows them unchanged; else None."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    plain = text.replace("\n", "").replace("\t", "")
    return text if visible(plain) == plain else None
