"""Seeded bugs of the formats: each is a change of their text that `make fuzz` has to find, by its oracle."""

from dataclasses import dataclass

from tests.faults.mutants import Edit, Mutant


@dataclass(frozen=True, slots=True)
class FormatMutant(Mutant):
    """A bug, and the format whose fuzzed payloads show it."""

    format: str = ""


def _mutant(name: str, format: str, why: str, *edits: Edit) -> FormatMutant:
    return FormatMutant(name, why, edits, (), format=format)


MAGIC: Edit = (
    "formats/wire.py",
    "if len(value) < HEADER_BYTES or value[:1] != MAGIC:",
    "if len(value) < HEADER_BYTES:",
)

FORMAT_MUTANTS = (
    _mutant(
        "schema of the record before",
        "avro",
        "a value is read by the schema that the value before it had",
        (
            "formats/avro.py",
            "            number, read = known.get(header) or add(header, value)\n",
            '            number, read = known.get(b"") or known.get(header) or add(header, value)\n'
            '            known[b""] = known.get(header) or add(header, value)\n',
        ),
    ),
    _mutant("magic byte not checked", "avro", "what is no value of the wire format is read as one", MAGIC),
    _mutant("magic byte of messages not checked", "protobuf", "likewise", MAGIC),
    _mutant("magic byte of documents not checked", "json_schema", "likewise", MAGIC),
    _mutant(
        "bytes behind a value ignored",
        "avro",
        "a value that goes on behind its last field passes",
        ("formats/avro.py", "        if data.tell() != len(value):\n", "        if data.tell() > len(value):\n"),
    ),
    _mutant(
        "bytes behind a value ignored by the fast path",
        "avro",
        "likewise",
        ("formats/avro.py", "            if data.read(1):\n", "            if data.read(0):\n"),
    ),
    _mutant(
        "whole numbers taken for moments",
        "avro",
        "a number that no schema calls a moment is staged as one",
        (
            "formats/avro_schema.py",
            '    if (kind, logical) == ("long", "timestamp-micros"):\n',
            '    if kind == "long" or node == "long":\n',
        ),
    ),
    _mutant(
        "scale of decimals dropped",
        "avro",
        "an amount is ten thousand times too large",
        ("formats/avro_schema.py", "e-{writer_schema.get('scale', 0)}", ""),
    ),
    _mutant(
        "decimals without a sign",
        "avro_single_object",
        "an amount below zero is a large one",
        (
            "formats/avro_schema.py",
            "int.from_bytes(data, 'big', signed=True)",
            "int.from_bytes(data, 'big')",
        ),
    ),
    _mutant(
        "nanoseconds cut off",
        "avro",
        "a moment loses what is below its microseconds",
        ("formats/avro_schema.py", "    return Nanoseconds(data)\n", "    return Nanoseconds(data // 1_000 * 1_000)\n"),
    ),
    _mutant(
        "nanoseconds of messages cut off",
        "protobuf",
        "likewise",
        (
            "formats/protobuf_values.py",
            "message.seconds * 1_000_000_000 + message.nanos)\n\n\ndef _duration",
            "message.seconds * 1_000_000_000 + message.nanos // 1_000 * 1_000)\n\n\ndef _duration",
        ),
    ),
    _mutant(
        "message index ignored",
        "protobuf",
        "every value is the file's first message",
        (
            "formats/protobuf.py",
            "types.descriptor(_indexes(value[HEADER_BYTES:end]))",
            "types.descriptor([0])",
        ),
    ),
    _mutant(
        "scale of a message's decimals dropped",
        "protobuf",
        "an amount is ten thousand times too large",
        ("formats/protobuf_values.py", "e{-message.scale}", ""),
    ),
    _mutant(
        "fields that a message does not have ignored",
        "protobuf",
        "the value of a damaged tag is lost",
        (
            "formats/protobuf_values.py",
            "        refuse_unknown(message, name)\n        return convert(message)\n",
            "        return convert(message)\n",
        ),
    ),
    _mutant(
        "default for a field without a value",
        "protobuf",
        "a text that is not set is an empty one",
        ("formats/protobuf_values.py", "                if message.HasField(name):\n", "                if True:\n"),
    ),
    _mutant(
        "kind of a schema not checked",
        "json_schema",
        "a value by a schema of Avro is read as JSON",
        ("formats/json_schema.py", "        if schema.kind != JSON_SCHEMA:\n", "        if not schema.kind:\n"),
    ),
    _mutant(
        "unknown schema without a registry",
        "avro",
        "a registry that does not answer makes dead letters of good records",
        (
            "formats/registry.py",
            "        except OSError as error:\n            raise _no_answer(url, error) from error\n",
            "        except OSError:\n            return None\n",
        ),
        (
            "formats/registry.py",
            "                raise\n            raise _no_answer(url, error) from error\n",
            "                raise\n            return None\n",
        ),
    ),
    _mutant(
        "fingerprint of another schema",
        "avro_single_object",
        "every single object is read by the subject's first schema",
        ("formats/fingerprints.py", "        return self._ids[found]", "        return min(self._ids.values())"),
    ),
    _mutant(
        "text cut at a line's end",
        "text",
        "a value loses its last blank",
        ("formats/plain_text.py", "text_of(value)})", "text_of(value).rstrip()})"),
    ),
)
