"""What damage does to a payload's bytes."""

from random import Random


def flip(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randrange(len(value) or 1)
    return value[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in value[at : at + 1]) + value[at + 1 :]


def _insert(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randint(0, len(value))
    return (
        value[:at]
        + rng.choice((rng.randbytes(1), rng.randbytes(4), b'"', b"\\", b"{", b"}", b",", b"0", b"\\u0000"))
        + value[at:]
    )


def _delete(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randint(0, len(value))
    return value[:at] + value[at + rng.choice((1, 1, 2, 20)) :]


def _repeat(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randint(0, len(value))
    end = at + rng.randrange(40)
    return value[:end] + value[at:end] + value[end:]


def _splice(rng: Random, value: bytes, before: bytes) -> bytes:
    return value[: rng.randint(0, len(value))] + before[rng.randint(0, len(before)) :]


def _replace(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randrange(len(value) or 1)
    return value[:at] + rng.randbytes(1) + value[at + 1 :]


def _digits(rng: Random, value: bytes, _before: bytes) -> bytes:
    at = rng.randint(0, len(value))
    return value[:at] + rng.choice((b"0", b"9" * 20, b"1", b"-", b".", b"e9", b"E-400", b"\xd9\xa3")) + value[at:]


MUTATIONS = (flip, flip, _insert, _delete, _repeat, _splice, _replace, _digits)
