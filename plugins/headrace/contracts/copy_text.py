"""The fast path of a record: from its JSON straight to a line of COPY text.

A contract is compiled, from the core schema that pydantic validates by, to one function: msgspec reads the JSON, a
few checks follow, an f-string writes the line. The function knows no reasons. Whatever is unusual (a number with an
exponent, a tombstone, an escaped quote) or wrong gives None, and the record goes to Contract.decode, which alone
decides what is a dead letter and why. So the function has one duty: where it gives a line, the contract accepts the
record, and Postgres stores the same row either way. tests/unit/test_copy_text.py holds it to that with the corpus and
the fuzzer, test_fast_rows.py on a real server.

A contract with something that is not known here (another type, a rule about several fields, keys with a format of their
own) has no such function. Formats whose documents are no JSON text have one of contracts.copy_documents.
"""

from collections.abc import Sequence
from textwrap import indent
from typing import Any

import msgspec

from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NESTED_OR_ODD, NULL, SMALL, NotPlain, escaped, json_cell
from headrace.contracts.copy_documents import compile_documents
from headrace.contracts.copy_field import Binder as Binder
from headrace.contracts.copy_field import FastField, UnsupportedField
from headrace.contracts.copy_field import LineMaker as LineMaker
from headrace.contracts.copy_fields import field_of, field_schemas
from headrace.formats.wire import HEADER_BYTES


def compile_lines(contract: Contract) -> Binder | None:
    """Compile a contract; None where something in it is known to Contract.decode alone."""
    if contract.decoder.reads_headers or contract.places is not None or contract.key_parts is not None:
        return None
    if contract.leftovers is not None:
        return None
    if contract.decoder.json_text is None:
        return None if contract.masks is not None else compile_documents(contract)
    if contract.key_decoder is not None and contract.decoder.json_text.separator is not None:
        return None
    is_key_masked = contract.masks is not None and contract.masks.is_key_masked
    if is_key_masked and (contract.key_index is None or contract.key_decoder is not None):
        return None
    try:
        schemas = field_schemas(contract.model)
        fields = [field_of(column, schemas[column.field], contract) for column in contract.columns]
        if any(len(column.source_names) != 1 for column in contract.columns):
            raise UnsupportedField
    except UnsupportedField:
        return None
    source_names = [column.source_names[0] for column in contract.columns]
    struct = msgspec.defstruct(
        "Fields",
        [(f"v{i}", *field.definition) for i, field in enumerate(fields)],
        rename={f"v{i}": name for i, name in enumerate(source_names)},
        kw_only=True,  # else those with a default would have to come last
        gc=False,  # a struct of texts and numbers is in no cycle
    )
    names: dict[str, Any] = {
        "UNSET": msgspec.UNSET,
        "decode": msgspec.json.Decoder(struct).decode,
        "extra_of": _Extra(source_names) if contract.model.model_config.get("extra") != "forbid" else _no_extra,
        "escaped": escaped,
        "is_known": contract.decoder.is_known,
        "schema_id": contract.decoder.schema_id,
        "has_key": contract.has_key,
    }
    for i, field in enumerate(fields):
        names |= {f"{name}{i}": value for name, value in field.names.items()}
    if contract.masks is not None and contract.key_index is not None and is_key_masked:
        names["mask_key"] = contract.masks.cell_of(contract.columns[contract.key_index])
    # as dataclasses and namedtuples are made; the source holds numbers and names of ours, and nothing of the contract's
    exec(_source(contract, fields), names)  # noqa: S102
    binder: Binder = names["bind"]
    return binder


def _source(contract: Contract, fields: Sequence[FastField]) -> str:
    """The text of `bind`, a function that gives the function of a batch."""
    always = [field for field in fields if not field.is_nullable and not field.has_default]
    quotes = sum(2 + field.quotes for field in always)
    steps = "".join(field.source(i) for i, field in enumerate(fields))
    columns = r"\t".join(f"{{v{i}}}{field.suffix if field in always else ''}" for i, field in enumerate(fields))
    end, number = (r"\t", r"{number}\n") if contract.has_schema_ids else (r"\n", "")
    return f"""
def bind(generation, partition, batch_id):
    place = f"\\t{{generation}}\\t{{partition}}\\t"
    tail = f"\\t{{batch_id}}{end}"

    def make_line(offset, at, key, value, headers):
        if value is None or len(value) > {contract.max_value_bytes}:
            return None
        try:
{indent(_text_source(contract), " " * 12)}
{indent(_split_source(contract), " " * 12)}
            fields = decode(text)
            has_escapes = "\\\\" in text
            if has_escapes and ("\\\\u0000" in text or "\\\\u0022" in text):
                return None
            quotes = {quotes}
{indent(steps, " " * 12)}
            # as many as the fields need: none stands twice, and there is no other
            others = text.count('"') - quotes
            extra = extra_of(text, others, has_escapes) if others else {NULL!r}
        except Exception:  # Contract.decode meets the same error and gives it a reason
            return None
{indent(_key_source(contract), " " * 8)}
        return f"{columns}{{place}}{{offset}}\\t{{at}}\\t{{key_text}}\\t{{headers}}\\tf\\t{{extra}}{{tail}}{number}"

    return make_line
"""


def _text_source(contract: Contract) -> str:
    """Statements that leave the value's text in text, and in number the schema's id that stands before it."""
    if contract.decoder.json_text is None or not contract.decoder.json_text.has_schema_id:
        return 'text = str(value, "utf-8")'
    return f"""
if not is_known(value):
    return None
number = schema_id(value, ())
text = str(value[{HEADER_BYTES}:], "utf-8")
"""


def _split_source(contract: Contract) -> str:
    """Statements that take a key off the document's front and leave it in prefix."""
    separator = contract.decoder.json_text and contract.decoder.json_text.separator
    if separator is None:
        return ""
    return f"""
prefix = None
if text[:1] in " \\t\\r\\n":
    return None  # a document may follow
if text[:1] != "{{":
    prefix, found, text = text.partition({separator!r})
    if not found or text[:1] != "{{":
        return None
"""


def _key_source(contract: Contract) -> str:
    """Statements that leave the record's key, as bytea reads it, in key_text; the field's own text is there before."""
    if contract.key_index is None:
        return r"""key_text = "\\N" if key is None else f"\\\\x{key.hex()}" """
    if contract.key_decoder is not None:
        return r"""
if not has_key(key, key_value):
    return None
key_text = f"\\\\x{key.hex()}"
"""
    # bytea takes ASCII as it stands, where it has no backslash; other bytes it would take in the server's encoding
    as_hex = r"""if has_escapes or not key.isascii():
    key_text = f"\\\\x{key.hex()}"
"""
    if contract.columns[contract.key_index].masked is not None:
        as_hex = "if True:\n    key_text = mask_key(key_text)\n"
    if contract.decoder.json_text is None or contract.decoder.json_text.separator is None:
        return f"if key != key_text.encode():\n    return None\n{as_hex}"
    return rf"""
if key is None:
    if prefix != key_text:
        return None
    key_text = "\\N"
elif key != key_text.encode() or (prefix is not None and prefix != key_text):
    return None
el{as_hex}"""


class _Extra:
    """The fields that a contract does not name, as a cell of COPY text: {"name":value,...} as the record wrote them."""

    def __init__(self, source_names: Sequence[str]) -> None:
        self._names = tuple(source_names)
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def __call__(self, text: str, quotes: int, has_escapes: bool) -> str:
        """The cell, for a document whose other fields have so many quotes; raises ValueError for another number."""
        others = self._decode(text)
        pop = others.pop
        for name in self._names:
            pop(name, None)
        if not others:
            raise NotPlain  # a name that stands twice
        extra = msgspec.json.encode(others)
        if extra.count(b'"') != quotes:
            raise NotPlain
        # msgspec has read it: what it lets pass and the contract does not is in escapes, exponents, digits and objects
        if has_escapes or len(extra) > SMALL or NESTED_OR_ODD(extra, 1):
            return json_cell(extra)
        return str(extra, "utf-8")


def _no_extra(_text: str, _quotes: int, _has_escapes: bool) -> str:
    raise NotPlain
