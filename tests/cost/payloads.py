"""JSON values, lists and documents of any size that once were, or may be, expensive to read."""

from collections.abc import Callable

Make = Callable[[int], str]


def runs(unit: str, before: str = "", behind: str = "") -> Make:
    """Texts of one unit over and over."""
    return lambda size: before + unit * (size // len(unit)) + behind


def numbered(unit: str, before: str = "", behind: str = "") -> Make:
    """Texts of one unit over and over, each with a number of its own in it."""
    return lambda size: before + "".join(unit.format(i) for i in range(size // len(unit.format(10_000)))) + behind


# JSON values of about so many bytes
TEXTS = {
    "plain": runs("a", '"', '"'),
    "utf8": lambda size: runs("é😀", '"', '"')(size // 3),
    "escapes": runs(r"\u0041", '"', '"'),
    "surrogate pairs": runs(r"\ud83d\ude00", '"', '"'),
    "halves of pairs": runs(r"\ud83d", '"', '"'),
    "backslashes": runs(r"\\", '"', '"'),
    "quotes": runs(r"\"", '"', '"'),
    "escaped quotes": runs(r"\u0022", '"', '"'),
    "newlines": runs(r"\n", '"', '"'),
    "spaces": runs(" ", '"', '"'),
    "pipes": runs("|", '"', '"'),
    "digits": runs("1", '"', '"'),
    "zeros": runs("0", '"', '"'),
    "exponent": runs("1", '"1e', '"'),
    "fraction of a time": runs("1", '"2026-01-01T00:00:00.', 'Z"'),
    "almost a time": runs("1", '"2026-01-01T00:00:00.', 'x"'),
    "zone of a time": runs("A", '"2026-01-01T00:00:00Z[', ']"'),
    "zones": runs("+01:00", '"2026-01-01T00:00:00', '"'),
    "almost a clock": runs("1", '"00:00:00.', 'x"'),
    "braces": runs("{", '"', '"'),
    "cut off": runs("a", '"'),
}
LISTS = {
    "ones": runs("1,", "[", "1]"),
    "texts": runs('"",', "[", '""]'),
    "truths": runs("true,", "[", "true]"),
    "objects": runs('{"x":1},', "[", "{}]"),
}
DOCUMENTS = {
    "names": numbered('"n{}":1,', "{", '"n":1}'),
    "names of escapes": numbered(r'"\u0061{}":1,', "{", '"n":1}'),
    "names that collide as numbers": lambda size: numbered('"{}":1,', "{", '"n":1}')(size),
    "one name": runs('"n":1,', "{", '"n":1}'),
    "last name twice": numbered('"n{}":1,', "{", '"n0":1}'),
    "long name": runs("a", '{"', '":1}'),
    "long name of escapes": runs(r"\u0061", '{"', '":1}'),
    "long names": runs('"%s":1,' % ("a" * 5_000), "{", '"n":1}'),
    "objects in objects": lambda size: '{"a":' * 190 + runs(r'"\u0041",', "[", "1]")(size) + "}" * 190,
    "numbers in arrays": lambda size: "[" * 190 + runs("1,", "[", r'"\u0041"]')(size) + "]" * 190,
    "nested": runs("[" * 100 + "]" * 100 + ",", "[", "1]"),
    "never closed": runs("["),
    "never opened": runs("]"),
    "digits": runs("1"),
    "fraction": runs("1", "0."),
    "exponent of zeros": runs("0", "1e", "1"),
    "long numbers": runs("1" * 3_999 + ",", "[", "1]"),
    "longest numbers": runs("1" * 4_300 + ",", "[", "1]"),
    "long fractions": runs("0." + "1" * 3_900 + ",", "[", "1]"),
    "long texts like numbers": runs('"%s",' % ("e" * 3_990), "[", "1]"),
    "exponents": runs("1e999,", "[", "1]"),
    "small exponents": runs("1e-9,", "[", "1]"),
    "blanks": runs(" ", "[", "]"),
    "blanks and lines": runs("1 \t\n,", "[", "1]"),
}
