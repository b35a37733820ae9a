"""Records with defects of every kind, and some without: seeded, so that a finding can be repeated."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tests.support.fuzz_mutations import MUTATIONS, flip
from tests.support.fuzz_shapes import PayloadFields, PayloadShape
from tests.support.fuzz_values import BAD_UTF8, NOT_JSON, TIMES, VALUES, json_value

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Payload:
    """A record to produce, and the name of what was done to it."""

    defect: str
    key: bytes | None
    value: bytes | None
    headers: list[Header] = field(default_factory=list)


def payloads(shape: PayloadShape, seed: int, records: int, *, huge: bool = True) -> Iterator[Payload]:
    """Yield payloads: a third as they should be, a third with one thing wrong, a third of broken bytes.

    huge: with a value or a key of 10 MB, now and then.
    """
    rng = Random(seed)
    maker = _Maker(rng, shape)
    for number in range(records):
        chance = rng.random()
        if huge and number % 20_000 == 7_000:
            yield maker.huge()
        elif chance < 0.34:
            yield maker.valid()
        elif chance < 0.70:
            yield maker.defective()
        else:
            yield maker.mutated()


KEYS: tuple[bytes | None, ...] = (
    None, b"", b"\0", b"\xff\xfe\0", b" ", b"null", b"0", b"k" * 255, b"k" * 256, b"\xc3\xa9" * 255, b"\xc3\xa9" * 256,
    b"k" * 20_000, b"job\0", b"a|b|c", b'"quoted"', b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"line\nbreak", b"1e5",
    b"\\u0000",
)  # fmt: skip
HEADERS: tuple[list[Header], ...] = (
    [("source", b"web")], [("", b"")], [("empty", b""), ("null", None)], [("twice", b"1"), ("twice", b"2")],
    [("binary", b"\x00\xff\x80")], [("nul\0name", b"x")], [("nul", b"a\0b")], [("\U0001f600", "é".encode())],
    [("many", b"x")] * 50, [("long" * 500, b"y" * 5000)], [('"quotes"\\', b'{"a":1}')],
    [("surrogate", b"\xed\xa0\x80")],
)  # fmt: skip


class _Maker:
    def __init__(self, rng: Random, shape: PayloadShape) -> None:
        self._rng = rng
        self._shape = shape
        self._names = list(shape.fields)
        self._last = b"{}"
        self._cut = 0

    def valid(self) -> Payload:
        """As it should be, at least by intention: odd spaces, escapes, orders and extras included."""
        rng = self._rng
        key, fields = self._document()
        if rng.random() < 0.02:
            return Payload("tombstone", rng.choice((key, key, *KEYS)), None, self._headers())
        pairs = [(json.dumps(name), value) for name, value in fields.items()]
        if rng.random() < 0.15:
            pairs += [(json.dumps(f"extra_{i}"), json_value(rng)) for i in range(rng.choice((1, 2, 40)))]
        if rng.random() < 0.1:
            rng.shuffle(pairs)
        if rng.random() < 0.05:
            pairs = [(_escaped(rng, name), value) for name, value in pairs]
        value = self._join(pairs)
        if self._shape.separator is not None and rng.random() < 0.1:
            value = key + self._shape.separator + value
            return Payload("keyed", rng.choice((None, None, key)), value, self._headers())
        return Payload("none", key, value, self._headers())

    def defective(self) -> Payload:
        """One thing that may be wrong."""
        return self._rng.choice(self.DEFECTS)(self)

    def mutated(self) -> Payload:
        """Bytes broken after they were written."""
        rng = self._rng
        base = self.valid() if rng.random() < 0.8 else self.defective()
        value = base.value or b""
        before, self._last = self._last, value
        if len(value) > 20_000:
            return base
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            value = rng.choice(MUTATIONS)(rng, value, before)
        key = base.key
        if rng.random() < 0.05 and key:
            key = flip(rng, key, b"")
        return Payload("mutated", key, value, base.headers)

    def huge(self) -> Payload:
        """10 MB in one place."""
        rng = self._rng
        key, fields = self._document()
        size = 10_000_000
        place = rng.randrange(4)
        if place == 0:
            return Payload("huge_key", b"k" * size, self._join(_named(fields)))
        if place == 1:
            return Payload("huge_text", key, self._join([*_named(fields), ('"extra"', '"' + "x" * size + '"')]))
        if place == 2:
            return Payload("huge_deep", key, b"[" * size)
        return Payload("huge_bytes", key, rng.randbytes(size))

    def _document(self) -> tuple[bytes, PayloadFields]:
        fields = {name: maker(self._rng) for name, maker in self._shape.fields.items()}
        return str(json.loads(fields[self._shape.key])).encode(), fields

    def _join(self, pairs: list[tuple[str, str]]) -> bytes:
        space = self._rng.choice(("", "", "", "", " ", "\n\t"))
        text = f",{space}".join(f"{name}{space}:{space}{value}" for name, value in pairs)
        return f"{space}{{{text}{space}}}{space}".encode("utf-8", "surrogatepass")

    def _headers(self) -> list[Header]:
        return self._rng.choice(HEADERS) if self._rng.random() < 0.05 else []

    def _with_value(self) -> Payload:
        key, fields = self._document()
        fields[self._rng.choice(self._names)] = self._rng.choice(VALUES)
        return Payload("value", key, self._join(_named(fields)))

    def _with_times(self) -> Payload:
        key, fields = self._document()
        fields[self._rng.choice(self._names)] = json.dumps(self._rng.choice(TIMES))
        return Payload("time", key, self._join(_named(fields)))

    def _with_not_json(self) -> Payload:
        key, fields = self._document()
        fields[self._rng.choice([*self._names, "extra"])] = self._rng.choice(NOT_JSON)
        return Payload("not_json", key, self._join(_named(fields)))

    def _with_extra(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        name = rng.choice(
            ('"extra"', '""', '"__dict__"', '"model_config"', '"\\u0000"', '"\\ud800"', '"ключ"', '"a.b"')
        )
        return Payload("extra", key, self._join([*_named(fields), (name, rng.choice(VALUES))]))

    def _with_nested(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        inner = rng.choice(VALUES)
        for _ in range(rng.choice((1, 3, 150))):
            inner = rng.choice((f"[{inner}]", f'{{"n":{inner}}}', f'[1,{inner},"x"]'))
        name = rng.choice([*self._names, "extra"])
        fields[name] = inner
        return Payload("nested", key, self._join(_named(fields)))

    def _without(self) -> Payload:
        key, fields = self._document()
        for name in self._rng.sample(self._names, self._rng.choice((1, 1, 2, len(self._names)))):
            del fields[name]
        return Payload("missing", key, self._join(_named(fields)))

    def _renamed(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        pairs = _named(fields)
        at = rng.randrange(len(pairs))
        name = self._names[at]
        other = rng.choice((name.lower(), name + " ", name + "\u200b", name[:-1], " " + name, name.swapcase()))
        pairs[at] = (json.dumps(other), pairs[at][1])
        return Payload("renamed", key, self._join(pairs))

    def _twice(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        name = rng.choice(self._names)
        value = rng.choice((fields[name], rng.choice(VALUES)))
        again = rng.choice((json.dumps(name), _escaped(rng, json.dumps(name))))
        pairs = _named(fields)
        pairs.insert(rng.randint(0, len(pairs)), (again, value))
        return Payload("twice", key, self._join(pairs))

    def _twice_nested(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        inner = rng.choice(
            ('{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '[{"":1,"":2}]', '{"b":{"a":[],"a" :{}}}', '{"a":1,"A":1}')
        )
        fields[rng.choice(("extra", *self._names))] = inner
        return Payload("twice_nested", key, self._join(_named(fields)))

    def _deep(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        depth = rng.choice((190, 198, 199, 200, 201, 202, 210, 500, 900, 995, 1100))
        if rng.random() < 0.02:
            depth = 100_000
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('[1,{"a":', "}]")))
        core = rng.choice(("", "1", "{}", "[]")) if opening == "[" else "1"
        deep = opening * depth + core + closing * rng.choice((depth, depth, depth, 0, depth - 1))
        if rng.random() < 0.2:
            return Payload("deep", key, deep.encode())
        fields[rng.choice(("extra", *self._names))] = deep
        return Payload("deep", key, self._join(_named(fields)))

    def _many(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        for number in range(rng.choice((100, 300, 5_000)) if rng.random() < 0.1 else 60):
            fields[f"x{number}"] = str(number)
        return Payload("many", key, self._join(_named(fields)))

    def _long(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        size = rng.choice((1_000, 10_000)) if rng.random() < 0.97 else rng.choice((500_000, 1_048_000, 1_100_000))
        fields[rng.choice(("extra", *self._names))] = json.dumps(rng.choice("xé") * size, ensure_ascii=False)
        return Payload("long", key, self._join(_named(fields)))

    def _other_key(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        near = (
            key + b"\0",
            key + b" ",
            key.upper(),
            key.swapcase(),
            key[:-1],
            b"|" + key,
            key * 2,
            json.dumps("x").encode(),
        )
        return Payload("key", rng.choice((*KEYS, *near)), self._join(_named(fields)), self._headers())

    def _other_document(self) -> Payload:
        key, _ = self._document()
        return Payload("document", key, self._rng.choice((*VALUES, *NOT_JSON)).encode("utf-8", "surrogatepass"))

    def _blank(self) -> Payload:
        key, _ = self._document()
        return Payload(
            "blank",
            key,
            self._rng.choice((b"", b" ", b"\n", b" \t\r\n", b"\0", b"\xc2\xa0", b"\xef\xbb\xbf", b"\x0b\x0c")),
        )

    def _encoded(self) -> Payload:
        key, fields = self._document()
        text = self._join(_named(fields)).decode("utf-8", "replace")
        encoding = self._rng.choice(
            ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "latin-1", "cp1252")
        )
        return Payload("encoded", key, text.encode(encoding, "replace"))

    def _bad_utf8(self) -> Payload:
        rng = self._rng
        key, fields = self._document()
        value = self._join(_named(fields))
        at = rng.randint(0, len(value))
        return Payload("utf8", key, value[:at] + rng.choice(BAD_UTF8) + value[at:])

    def _cut_off(self) -> Payload:
        """Every length in turn."""
        key, fields = self._document()
        value = self._join(_named(fields))
        self._cut += 1
        return Payload("cut_off", key, value[: self._cut % len(value)])

    def _joined(self) -> Payload:
        key, fields = self._document()
        value = self._join(_named(fields))
        between = self._rng.choice((b"", b"\n", b",", b"|"))
        return Payload(
            "joined",
            key,
            self._rng.choice((value + between + value, key + b"|" + value, value + b"}", b"[" + value + b"]")),
        )

    DEFECTS: tuple[Callable[["_Maker"], Payload], ...] = (
        _with_value, _with_value, _with_value, _with_times, _with_not_json, _with_extra, _with_nested, _without,
        _renamed, _twice,
        _twice_nested, _deep, _many, _long, _other_key, _other_document, _blank, _encoded, _bad_utf8, _cut_off, _joined,
    )  # fmt: skip


def _named(fields: PayloadFields) -> list[tuple[str, str]]:
    return [(json.dumps(name), value) for name, value in fields.items()]


def _escaped(rng: Random, name: str) -> str:
    at = rng.randrange(1, len(name) - 1)
    return f"{name[:at]}\\u{ord(name[at]):04x}{name[at + 1 :]}"
