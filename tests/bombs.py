"""Record batches, byte by byte: such as no producer of ours sends, and that take no memory to make."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import kafka.codec
from kafka.record.util import calc_crc32c, encode_varint

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
MB = 1024 * 1024


def varint(number: int) -> bytes:
    data = bytearray()
    encode_varint(number, data.append)
    return bytes(data)


def head(offset: int, value_size: int, headers: int = 0) -> bytes:
    """A record of a value of so many bytes, up to the value; its headers' count is the byte that follows it."""
    body = b"\0" + varint(0) + varint(offset) + varint(-1) + varint(value_size)
    return varint(len(body) + value_size + 1 + headers) + body


def record(offset: int, value: bytes) -> bytes:
    return head(offset, len(value)) + value + b"\0"


def packed(codec: int, parts: Iterator[bytes]) -> bytes:
    """Parts compressed as one, without holding them."""
    if codec == NONE:
        return b"".join(parts)
    if codec == SNAPPY:
        return b"".join(_snappy_blocks(parts))
    compressor: Any = {
        GZIP: lambda: zlib.compressobj(9, wbits=31),
        LZ4: kafka.codec.lz4.LZ4FrameCompressor,
        ZSTD: lambda: kafka.codec.zstd.ZstdCompressor().compressobj(),
    }[codec]()
    begin = compressor.begin() if codec == LZ4 else b""
    return b"".join([begin, *map(compressor.compress, parts), compressor.flush()])


def _snappy_blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    yield b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for part in parts:
        block = kafka.codec.snappy.compress(part)
        yield struct.pack(">i", len(block)) + block


def batch(codec: int, packed: bytes, count: int, offset: int = 0, last_delta: int | None = None) -> bytes:
    """A batch whose records are compressed already."""
    last_delta = count - 1 if last_delta is None else last_delta
    body = struct.pack(">hiqqqhii", codec, last_delta, 5, 5, -1, -1, -1, count) + packed
    crc = calc_crc32c(memoryview(body))
    return struct.pack(">qiibI", offset, len(body) + 9, 0, 2, crc) + body


def zeros(size: int) -> Iterator[bytes]:
    whole, rest = divmod(size, MB)
    yield from [bytes(MB)] * whole
    yield bytes(rest)


def one_large(size: int) -> Iterator[bytes]:
    """A record, one of so many zeros, and a third."""
    yield record(0, b"before") + head(1, size)
    yield from zeros(size)
    yield b"\0" + record(2, b"behind")


def many(count: int, size: int) -> Iterator[bytes]:
    value = bytes(size)
    return (record(offset, value) for offset in range(count))
