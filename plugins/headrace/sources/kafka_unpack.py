"""Unpacking of record batches, piece by piece, within the size limits.

A batch of 1 MB may unpack to 1 GB with gzip and to 30 GB with zstd. Each piece is unpacked after the previous one was
read: memory holds one piece and the record in which it ends. A record above a limit is skipped; its coordinate is kept.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

from kafka import codec
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record.util import decode_varint

from headrace.contracts.rejection import Rejection
from headrace.sources.bounds import Bounds

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)  # https://kafka.apache.org/documentation/#recordbatch
PIECE_BYTES = 1024 * 1024  # most batches are one piece, which costs no more than unpacking them as a whole
INPUT_BYTES = 256 * 1024  # with each piece zlib copies its unused input
# For the second member or frame, doubled for each further one: each copies its unused input, and 1 MB may hold 50,000
# members of 20 bytes
NEXT_INPUT_BYTES = 256
# A snappy copy writes 64 bytes for 3. Its blocks state their size: one that states more was not written by snappy.
SNAPPY_RATIO = 22
VARINT_BYTES_MAX = 10
RECORD_HEAD_BYTES = 1 + 2 * VARINT_BYTES_MAX  # a record's attributes, time and offset

_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_GZIP_MEMBER = b"\x1f\x8b\x08"
_LZ4_FRAME = b"\x04\x22\x4d\x18"


class Window:
    """The unread unpacked bytes of a batch: `data` from `at` on.

    A record that ends at or before `last` may be read directly; for any other, call `next_record`.
    """

    __slots__ = ("_base", "_batch_limit", "_bounds", "_packed_bytes", "_pieces", "at", "data", "last")

    def __init__(self, batch: Any, bounds: Bounds) -> None:
        number, buffer = batch.compression_type, batch._buffer
        self._bounds = bounds
        self._base = 0  # the position of `data` in the unpacked bytes
        self._pieces: Iterator[bytes] | None = None
        if number == NONE:
            self.data, self.at = bytes(buffer), batch._pos
            self._batch_limit = sys.maxsize
        else:
            batch._assert_has_codec(number)
            packed = bytes(memoryview(buffer)[batch._pos :])
            self.data, self.at = b"", 0
            self._packed_bytes, self._batch_limit = len(packed), bounds.of_batch(len(packed))
            self._pieces = pieces(number, packed)
            self._extend(1)
            if len(self.data) < PIECE_BYTES:
                self._extend(len(self.data) + 1)
        self._set_last(0)

    def next_record(self) -> tuple[int, Rejection | None]:
        """Unpack the next record; return its size, and the rejection if it is not kept.

        If it is kept, `data` holds the whole record, which starts at `at`. If not, `at` is at its attributes, of which
        `data` holds RECORD_HEAD_BYTES; then call `pass_over`. Raises CorruptRecordError if the record would end after
        the batch, and decode_varint's errors.
        """
        self._extend(VARINT_BYTES_MAX)
        size, begin = decode_varint(self.data, self.at)
        if size < 0:
            raise CorruptRecordError(f"Invalid record size: {size}")
        whole = begin - self.at + size
        reason = self._bounds.record(size)
        if reason is None and self._base + self.at + whole > self._batch_limit:
            reason = self._bounds.batch(self._packed_bytes)
        if reason is not None:
            self.at = begin
            self._extend(min(size, RECORD_HEAD_BYTES))
            return size, reason
        self._extend(whole + VARINT_BYTES_MAX)  # the next one's size with it
        if self.at + whole > len(self.data):
            raise _cut_off(whole, len(self.data) - self.at)
        self._set_last(whole)
        return size, None

    def pass_over(self, size: int) -> None:
        """Skip a record of this size, whose attributes are at `at`."""
        self._batch_limit += size  # skipped bytes do not count
        end = self.at + size
        while end > len(self.data):
            end -= len(self.data)
            self._base += len(self.data)
            self.data = self._next_piece()
            if not self.data:
                raise _cut_off(size, size - end)
        self.at = end
        self._set_last(0)

    def check_end(self) -> None:
        """Raise CorruptRecordError if data follows the last record, or the compression's end is wrong."""
        behind = len(self.data) - self.at
        if not behind and self._pieces is not None:
            behind = len(self._next(self._pieces) or b"")  # an empty one ends a gzip member or a frame of lz4
        if behind:
            raise CorruptRecordError(f"{behind} unconsumed bytes after all records consumed")

    def _set_last(self, size: int) -> None:
        """Allow reading the available bytes, up to the limits: at least `size` bytes, which were checked."""
        # less a varint, which may be cut off if more follows
        end = len(self.data) - (VARINT_BYTES_MAX if self._pieces is not None else 0)
        end = min(end, self.at + self._bounds.record_bytes, self._batch_limit - self._base)
        self.last = max(end, self.at + size)

    def _extend(self, size: int) -> None:
        """Make `size` bytes from `at` on available, if the batch has them; bytes before `at` may be dropped."""
        have = len(self.data) - self.at
        if have >= size or self._pieces is None:
            return
        parts = [self.data[self.at :]]
        self._base, self.at = self._base + self.at, 0
        while have < size and (piece := self._next_piece()):
            parts.append(piece)
            have += len(piece)
        self.data = b"".join(parts)

    def _next_piece(self) -> bytes:
        """The next piece that is not empty; b"" after the last one."""
        while self._pieces is not None:
            piece = self._next(self._pieces)
            if piece is None:
                self._pieces = None
            elif piece:
                return piece
        return b""

    def _next(self, found: Iterator[bytes]) -> bytes | None:
        try:
            return next(found, None)
        except (CorruptRecordError, UnsupportedCodecError):
            raise
        except Exception as error:  # each codec has its own
            raise CorruptRecordError(f"{type(error).__name__}: {error}") from error


def check_old_batch(batch: Any, bounds: Bounds) -> None:
    """Raise CorruptRecordError for a compressed batch of format 0 or 1 that unpacks to too much."""
    number = batch.compression_type
    if number == NONE:
        return
    batch._assert_has_codec(number)
    packed = bytes(batch._buffer)
    limit, key_offset = bounds.of_batch(len(packed)), batch.KEY_OFFSET_V1 if batch.magic else batch.KEY_OFFSET_V0
    key_size = struct.unpack_from(">i", packed, key_offset)[0]
    begin = key_offset + 2 * 4 + max(key_size, 0)
    if number == LZ4 and not batch.magic:
        return  # its frames' checksums are wrong: no current broker accepts such a batch
    for piece in pieces(number, packed[begin:]):
        limit -= len(piece)
        if limit < 0:
            raise CorruptRecordError(
                f"{bounds.batch(len(packed)).detail} (a batch of the format before Kafka 0.11 is unpacked as a whole)"
            )


def pieces(number: int, packed: bytes) -> Iterator[bytes]:
    """Unpack the bytes of a codec, by its number, into pieces of about PIECE_BYTES.

    An empty piece ends a gzip member or lz4 frame that another one follows; other trailing bytes are skipped, as
    brokers do. Raises the errors of the codec's library.
    """
    unpack = {GZIP: _gzip, SNAPPY: _snappy, LZ4: _lz4, ZSTD: _zstd}.get(number)
    if unpack is None:
        raise UnsupportedCodecError(f"Unrecognized compression type: {number}")
    return unpack(packed)


def _gzip(packed: bytes) -> Iterator[bytes]:
    member, at, given, step = zlib.decompressobj(31), 0, packed[:INPUT_BYTES], INPUT_BYTES
    while True:
        piece = member.decompress(given, PIECE_BYTES)
        if piece:
            yield piece
        if member.eof:
            at += len(given) - len(member.unused_data)
            if not packed.startswith(_GZIP_MEMBER, at):
                return
            yield b""
            member, step = zlib.decompressobj(31), NEXT_INPUT_BYTES
            given = packed[at : at + step]
            continue
        at += len(given) - len(member.unconsumed_tail)
        given = member.unconsumed_tail
        if not given:
            step = min(2 * step, INPUT_BYTES)
            given = packed[at : at + step]
        if not given and not piece:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def _snappy(packed: bytes) -> Iterator[bytes]:
    if len(packed) < _XERIAL_HEADER_BYTES or not packed.startswith(_XERIAL):
        yield _snappy_block(packed)
        return
    at = _XERIAL_HEADER_BYTES
    parts: list[bytes] = []  # blocks are of 32 kB
    have = 0
    while at < len(packed):
        if packed.startswith(_XERIAL, at):  # another stream follows
            at += _XERIAL_HEADER_BYTES
            continue
        size = struct.unpack_from("!i", packed, at)[0]
        at += 4
        if not 0 < size <= len(packed) - at:
            raise ValueError(f"found a block of {size} bytes, expected 1 to {len(packed) - at}")
        block = _snappy_block(packed[at : at + size])
        at += size
        parts.append(block)
        have += len(block)
        if have >= PIECE_BYTES:
            yield b"".join(parts)
            parts, have = [], 0
    if have:
        yield b"".join(parts)


def _snappy_block(packed: bytes) -> bytes:
    stated = shift = 0
    for byte in packed[:5]:
        stated |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if stated > len(packed) * SNAPPY_RATIO:
        raise ValueError(f"a block of {len(packed)} bytes states {stated}, expected at most {SNAPPY_RATIO} times it")
    unpacked: bytes = codec.snappy.decompress(packed)
    return unpacked


def _lz4(packed: bytes) -> Iterator[bytes]:
    frame, at = codec.lz4.LZ4FrameDecompressor(), 0
    given, step = packed[:INPUT_BYTES], INPUT_BYTES
    while True:
        piece = frame.decompress(given, PIECE_BYTES)
        at += len(given)
        if piece:
            yield piece
        if frame.eof:
            at -= len(frame.unused_data or b"")
            if not packed.startswith(_LZ4_FRAME, at):
                return
            yield b""
            frame, step = codec.lz4.LZ4FrameDecompressor(), NEXT_INPUT_BYTES
            given = packed[at : at + step]
            continue
        step = min(2 * step, INPUT_BYTES)
        given = packed[at : at + step] if frame.needs_input else b""
        if frame.needs_input and not given:
            raise EOFError("the frame is incomplete")


def _zstd(packed: bytes) -> Iterator[bytes]:
    with codec.zstd.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield piece


def _cut_off(size: int, found: int) -> CorruptRecordError:
    return CorruptRecordError(f"Invalid record size: expected {size} bytes, found the last {found} of the batch")
