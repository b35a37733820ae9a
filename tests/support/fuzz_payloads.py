"""Records as nobody should write them, and some as they should be: seeded, so that a finding can be had again."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

Header = tuple[str, bytes | None]
Maker = Callable[[Random], str]  # makes a valid JSON text of one field
PayloadFields = dict[str, str]  # a document: names and values as JSON texts


@dataclass(frozen=True, slots=True)
class Payload:
    """A record to produce, and the name of what was done to it."""

    defect: str
    key: bytes | None
    value: bytes | None
    headers: list[Header] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PayloadShape:
    """A dataset to make payloads of: its key field, and for each field what it may hold.

    separator: stands between a key and the document in the values of records without a key.
    """

    key: str
    fields: Mapping[str, Maker]
    separator: bytes | None = None


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


def _text(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.7:
        return json.dumps(f"LOC_{rng.randrange(2000)}")
    if kind < 0.9:
        dead_letters = "".join(rng.choice(LETTERS) for _ in range(rng.randrange(12)))
        return json.dumps(dead_letters, ensure_ascii=rng.random() < 0.5)
    return json.dumps(rng.choice(LETTERS) * rng.choice((1, 100, 255)), ensure_ascii=rng.random() < 0.5)


def _time(rng: Random) -> str:
    if rng.random() < 0.02:
        return json.dumps(rng.choice(TIMES))
    date = f"{rng.choice((1, 1969, 1970, 2019, 2024, 9999)):04d}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    clock = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    fraction = rng.choice(("", "", ".1", ".123456", ".1234567"))
    return json.dumps(date + rng.choice(" T") + clock + fraction + rng.choice(("", "", "Z", "+05:30", "-12:00")))


def _money(rng: Random) -> str:
    cents = rng.choice((0, 1, 99, 10**15 - 1, rng.randrange(10**15), rng.randrange(10**6), rng.randrange(10**6)))
    return rng.choice((f"{cents // 100}.{cents % 100:02d}", f"{cents // 100}", f"{cents}e-2", f"{cents // 100}.0"))


def _bigint(rng: Random) -> str:
    return str(rng.choice((0, -1, 7, 2**63 - 1, -(2**63), 2**53 + 1, rng.randrange(-(2**63), 2**63))))


def _any(rng: Random, depth: int = 0) -> str:
    kind = rng.random()
    if kind < 0.3 and depth < 4:
        names = [json.dumps(f"{rng.choice(LETTERS)}{i}") for i in range(rng.randrange(4))]
        return "{" + ",".join(f"{name}:{_any(rng, depth + 1)}" for name in names) + "}"
    if kind < 0.5 and depth < 4:
        return "[" + ",".join(_any(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"
    return rng.choice((_text, _time, _money, _bigint, lambda rng: rng.choice(NUMBERS)))(rng)


LETTERS = 'abcXYZ 09"\\/\n\t:,{}[]é€ß\u200b\u2028\ufeff\U0001f600\x7f\x1f'
NUMBERS = (
    "0", "-0", "-0.0", "1", "1.0", "1e0", "1E+2", "1e-2", "0.1", "0.001", "1.005", "12.345", "1.50000000000000000000",
    "1.0000000000000000000001", "9007199254740993", "9999999999999.99", "9999999999999.995", "10000000000000",
    "123456789012345e9", "0.1234567890123456789", "1e12", "1e13", "1e22", "1e23", "1e308", "1e309", "-1e309", "1e400",
    "1e-324", "1e-400", "4.9e-324", "2.2250738585072011e-308", "1e999", "1e1000", "1e1001", "1e-0005", "1E+0000000",
    "1e-1001", "1e5000",
    "1e99999999999", "-0.01", "127", "128", "32767", "32768", "-32768", "-32769", "2147483648", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551616",
    "123456789012345678901234567890.123", "9" * 309, "9" * 310, "9" * 4300, "9" * 4301, "9" * 5000,
    "0." + "0" * 5000 + "1", "1551434400", "1551434400000", "99999999999", "100000000000", "253402300799999",
    "253402300800000", "1551434400000000",
)  # fmt: skip
NOT_JSON = (
    "NaN", "Infinity", "-Infinity", "00", "01", "-01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "--1", "0x10", "1_000",
    "'x'", "undefined", "nul", "tru", "True", "None", '"open', '"\\x"', '"\\u12"', '"\\u00g0"', '"\t"', '"\n"', '"\0"',
    "1 2", "/*c*/1", "1//c", "", ",", "[1,]", "[,1]", "[1", "1]", '{"a":1,}', '{"a"}', '{a:1}', '{"a":}', "{1:2}",
    '"a" "b"', "\ufeff1", "\u00a01", "\x0b1", '{"a":1', "٣", "1e٣", '"\x1f"',
)  # fmt: skip
TEXTS = (
    '""', '" "', '"x"', '"SUCCESS"', '"success"', '"SUCCESS "', '"NO SUCCESS"', '"a"', '"b"', '"1"', '"1.5"', '"true"',
    '"null"', '"\\u0000"', '"a\\u0000b"', '"\\\\u0000"', '"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"', '"\\ud83dx"',
    '"\\uD83D\\u0041"', '"\\ude00\\ud83d"', '"\\/\\b\\f\\n\\r\\t"', '"\\u00e9"', '"\x7f\u2028\u2029\ufeff\ufffe\uffff"',
    '"\U0010ffff"', json.dumps("x" * 255), json.dumps("x" * 256), json.dumps("é" * 255, ensure_ascii=False),
    json.dumps("é" * 256), json.dumps("\U0001f600" * 255), json.dumps("\U0001f600" * 256, ensure_ascii=False),
    json.dumps("z" * 3000), json.dumps("e\u0301" * 128), '"\\"REVENUE\\":1"', '"x\\": \\"y"', '"NaN"', '"1e400"',
)  # fmt: skip
TIMES = (
    "2019-03-01", "2019-03-01 10:00:00", "2019-03-01T10:00:00Z", "2019-03-01t10:00:00z", "2019-03-01T10",
    "2019-03-01T10:00",
    "2019-03-01T1000", "2019-03-01T100000", "20190301T100000", "20190301", "2019-060", "2019-W09-5", "2019-W09-5T10:00",
    "2019-03", "2019", "2019-3-1", "2019-03-01T10:00:00+00", "2019-03-01T10:00:00+0530", "2019-03-01T10:00:00+05:30:15",
    "2019-03-01T10:00:00+05:30:15.123456", "2019-03-01T10:00:00+23:59", "2019-03-01T10:00:00+05:70",
    "2019-03-01T10:00:00+0570", "2019-03-01T10:00:00+24:00", "2019-03-01T10:00:00-00:00",
    "2019-03-01T10:00:00+14:00", "2019-03-01T10:00:00 +01:00", "2019-03-01T10:00:00[Europe/Berlin]",
    "2019-03-01T10:00:00 UTC",
    "2019-03-01T10:00:00.1", "2019-03-01T10:00:00.123456", "2019-03-01T10:00:00.123456789", "2019-03-01T10:00:00,5",
    "2019-03-01T10:00:00.", "2019-03-01T10:00.5", "2019-03-01T10.5", "2019-03-01+01:00", "2019-03-01Z",
    "2019-03-01\n10:00:00",
    "2019-03-01x10:00:00", "2019-03-01 10:00:00 -0500", "2019-03-01T10:00:00.12 +01:00", "2019-03-01T10:00:00  Z",
    "2019-03-01T24:00:00", "2019-03-01T24:00:01", "2019-03-01T25:00:00",
    "2019-03-01T10:60:00", "2019-06-30T23:59:60Z", "2016-12-31T23:59:60", "2019-02-29", "2020-02-29",
    "2019-02-30T10:00:00",
    "2019-04-31", "2019-13-01", "2019-00-01", "2019-01-00", "2019-01-32", "0000-01-01T00:00:00", "0001-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59-12:00", "10000-01-01T00:00:00",
    "-0001-01-01T00:00:00", "+2019-03-01T00:00:00", " 2019-03-01T10:00:00", "2019-03-01T10:00:00 ",
    "2019-03-01T10:00:00\n",
    "2019-03-01\u000010:00:00", "2019-03-01\ud80010:00:00", "2019-03-01_10:00:00", "2019-03-01\U0001f60010:00:00",
    "2019/03/01",
    "01-03-2019", "01.03.2019", "1551434400", "1551434400000", "1551434400.5", "now", "today", "infinity",
    "-infinity", "epoch",
    "", "-", "----------", "2019-03-0\uff11", "\uff12019-03-01", "2019-03-01T\uff110:00:00", "2019-11-03 01:30:00",
    "2019-03-10 02:30:00",
    "J2458543", "2019-03-01 BC", "2019-03-01T10:00:00+1", "2019-03-01T10:00:00+01:0", "2019-03-01T10:0:00",
    "2019-03-01Tx",
)  # fmt: skip
OTHERS = ("null", "true", "false", "[]", "{}", "[1]", '["x"]', '{"a":1}', '{"a":{"b":[1,2,{"c":null}]}}', "[[[[]]]]")
VALUES = (*NUMBERS, *TEXTS, *OTHERS, *(json.dumps(time) for time in TIMES))
BAD_UTF8 = (
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xc2",
    b"\xc3(", b"\xe0\x80\x80", b"\xe2\x82", b"\xe2(\xa1",
    b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf0\x80\x80\x80", b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\xfe", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xe9",
)  # fmt: skip
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
            pairs += [(json.dumps(f"extra_{i}"), _any(rng)) for i in range(rng.choice((1, 2, 40)))]
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
            key = _flip(rng, key, b"")
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


def _flip(rng: Random, value: bytes, _before: bytes) -> bytes:
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


MUTATIONS = (_flip, _flip, _insert, _delete, _repeat, _splice, _replace, _digits)


def _or_null(maker: Maker) -> Maker:
    return lambda rng: rng.choice(("null", '""')) if rng.random() < 0.1 else maker(rng)


def _as_text(maker: Maker) -> Maker:
    """Now and then as a text."""
    return lambda rng: f'"{maker(rng)}"' if rng.random() < 0.1 else maker(rng)


def _number(rng: Random) -> str:
    return rng.choice((_money, _bigint, lambda rng: repr(rng.uniform(-1e9, 1e9))))(rng)


def _revenue(rng: Random) -> str:
    return rng.choice((_money, _money, lambda rng: repr(rng.uniform(0, 1e9)), lambda rng: f"{rng.random():.40f}"))(rng)


def _milliseconds(rng: Random) -> str:
    return str(rng.choice((10**11, 253_402_214_399_999, rng.randrange(10**11, 2 * 10**12))))


JOBS = PayloadShape(
    "JOBIDENTIFIER",
    {
        "JOBCREATEDATE": _or_null(_time),
        "JOBDATE": _or_null(_time),
        "JOBIDENTIFIER": _as_text(lambda rng: f"{rng.randrange(10**6)}{rng.choice(('', '', '', '.0', 'e2'))}"),
        "JOBSTATUS": lambda rng: rng.choice(('"SUCCESS"', '"NO SUCCESS"')),
        "LOCATION": _text,
        "REVENUE": _or_null(_as_text(_revenue)),
        "SERVICENAME": _text,
        "USERID": _as_text(_bigint),
    },
    separator=b"|",
)
READINGS = PayloadShape(
    "ID",
    {
        "ID": lambda rng: json.dumps(f"{rng.randrange(10**6)}{rng.choice(('', '', '', ' ', 'é', '|'))}"),
        "TAKEN": _as_text(_milliseconds),
        "WRITTEN": lambda rng: "null" if rng.random() < 0.2 else _time(rng),
        "VALUE": _as_text(_number),
        "EXACT": lambda rng: "null" if rng.random() < 0.2 else _money(rng),
        "COUNT": lambda rng: str(rng.choice((-(2**15), 2**15 - 1, rng.randrange(1000)))),
        "TOTAL": lambda rng: "null" if rng.random() < 0.2 else _bigint(rng),
        "GOOD": lambda rng: rng.choice(("true", "false")),
        "KIND": lambda rng: rng.choice(('"a"', '"b"')),
        "NOTE": lambda rng: "null" if rng.random() < 0.2 else _text(rng),
        "PAYLOAD": lambda rng: "{" + f'"p":{_any(rng)}' + "}",
        "LIST": lambda rng: rng.choice(("null", "[]", f"[{_any(rng)}]")),
    },
)
EVENTS = PayloadShape(
    "event_id",
    {
        "schema_version": lambda rng: rng.choice(("1", "1", '"2"')),
        "event_id": lambda rng: json.dumps(f"{rng.randrange(10**6)}"),
        "event_time": _time,
        "user_id": _text,
        "event_type": _text,
        "payload": lambda rng: "{" + f'"p":{_any(rng)}' + "}",
    },
)
RIDES = PayloadShape(
    "PULocationID",
    {
        "PULocationID": _bigint,
        "DOLocationID": _as_text(_bigint),
        "trip_distance": _revenue,
        "total_amount": lambda rng: rng.choice(("", "-")) + _revenue(rng),
        "tpep_pickup_datetime": _milliseconds,
    },
)
TELEMETRY = PayloadShape(
    "event_id",
    {
        "event_id": lambda rng: json.dumps(f"{rng.randrange(10**6)}"),
        "device_id": lambda rng: (_text if rng.random() < 0.8 else _money)(rng),
        "zone": lambda rng: json.dumps(f"zone-{rng.choice('abcd')}"),
        "ts": _as_text(lambda rng: f"{rng.uniform(0, 2e9):.{rng.choice((0, 3, 6, 9))}f}"),
        "kpi": lambda rng: rng.choice(('"temperature"', '"humidity"', '"pressure"', '"vibration"')),
        "value": _as_text(lambda rng: rng.choice((repr(rng.uniform(0, 1e4)), f"{rng.randrange(10**6)}e-2"))),
    },
)
USERS = PayloadShape("USERID", {"LOCATION": _text, "USERID": _as_text(_bigint)})
