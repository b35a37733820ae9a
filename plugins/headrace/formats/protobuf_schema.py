"""From the text of a .proto file and its imports to message classes, by protoc; no code is generated.

protoc runs in a process of its own: it reads a text that anybody may have registered, and its messages say what is
wrong with it. https://protobuf.dev/reference/protobuf/proto3-spec/
"""

import subprocess
import sys
from base64 import b64decode
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from headrace.exceptions import RegistryRefused
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import PROTOBUF, SchemaText
from headrace.optional import needs

PROTOC_LIMIT_S = 60.0  # it takes 0.2 s
MAIN, SERIALIZED = "headrace_schema.proto", "serialized.bin"
# what registries know without a reference, as Confluent's serializers import it
BUILT_IN = {
    "confluent/meta.proto": """\
syntax = "proto3";
package confluent;
import "google/protobuf/descriptor.proto";
message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
extend google.protobuf.FileOptions { Meta file_meta = 1088; }
extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
""",
    "confluent/type/decimal.proto": """\
syntax = "proto3";
package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
""",
}


class MessageTypes:
    """The messages of a schema, by the indexes that a value names."""

    def __init__(self, descriptors: Any, what: str) -> None:
        from google.protobuf import descriptor_pool

        self._what = what
        self._pool = descriptor_pool.DescriptorPool()
        try:
            for file in descriptors.file:
                self._pool.Add(file)  # in the order of imports
        except TypeError as error:
            raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is no Protobuf schema: {_line(error)}") from error
        self._main = descriptors.file[-1]

    def descriptor(self, indexes: Sequence[int]) -> Any:
        """The message of a path of indexes, the first into the file's messages, the others into nested ones."""
        messages, names = self._main.message_type, [self._main.package] if self._main.package else []
        for index in indexes:
            if not 0 <= index < len(messages):
                raise Undecodable(
                    Fault.UNDECODABLE, f"names message {list(indexes)} of {self._what}, which has no such message"
                )
            names.append(messages[index].name)
            messages = messages[index].nested_type
        return self._pool.FindMessageTypeByName(".".join(names))


def compiled(schema: SchemaText, what: str) -> MessageTypes:
    """Compile a registered schema with its imports; raises Undecodable where it is none that can be compiled."""
    with needs("registry"):
        from google.protobuf.descriptor_pb2 import FileDescriptorSet

    if schema.kind != PROTOBUF:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is of type {schema.kind}, expected {PROTOBUF}")
    files = BUILT_IN | _imports(schema.imports, what) | {MAIN: schema.text}
    serialized = FileDescriptorSet()
    with TemporaryDirectory(prefix="headrace-protoc-") as name:
        for place, text in files.items():
            if (descriptor := _deserialized(text)) is not None:
                descriptor.name = place
                serialized.file.append(descriptor)
                continue
            path = Path(name, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        Path(name, SERIALIZED).write_bytes(serialized.SerializeToString())
        found = FileDescriptorSet.FromString(_protoc(Path(name), what))
    return MessageTypes(found, what)


def _deserialized(text: str) -> Any:
    """The file's descriptor, which some clients register in base64 in the place of its text; None for a text."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import DecodeError

    try:
        return FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (ValueError, DecodeError):
        return None


def _imports(imports: Mapping[str, SchemaText], what: str) -> dict[str, str]:
    """The files that a schema imports, directly or not, by the names that it imports them by."""
    found: dict[str, str] = {}
    for name, schema in imports.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or not place.parts:
            raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} imports {name!r}, expected a relative path")
        found |= {name: schema.text} | _imports(schema.imports, what)
    return found


def _protoc(folder: Path, what: str) -> bytes:
    """The serialized FileDescriptorSet of the main file and of what it imports."""
    tools = find_spec("grpc_tools")
    if tools is None or tools.origin is None:
        raise RegistryRefused("protobuf: the package grpcio-tools is not installed, expected its protoc; install it")
    target = folder / "descriptors.bin"
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{folder}"),
                *(f"-I{Path(tools.origin).parent / '_proto'}", "--include_imports"),
                f"--descriptor_set_in={folder / SERIALIZED}",
                *(f"--descriptor_set_out={target}", MAIN),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            timeout=PROTOC_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what}: protoc took more than {PROTOC_LIMIT_S:.0f} s") from error
    if done.returncode != 0 or not target.exists():
        said = _line(done.stderr.decode(errors="replace").replace(MAIN, "schema"))
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is no Protobuf schema: {said or done.returncode}")
    return target.read_bytes()


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
