"""Orders as Protobuf's own generated code writes them: the second client's messages are not made by our compiler."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from confluent_kafka.schema_registry.confluent.type.decimal_utils import to_proto_decimal
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

from tests.support.orders import Order, Orders

KINDS = {
    "id": "int64", "amount": "confluent.type.Decimal", "at": "google.protobuf.Timestamp",
    "nanos": "google.protobuf.Timestamp",
    "seen": "google.protobuf.Timestamp", "day": "string", "clock": "string", "uid": "string", "raw": "bytes",
    "ratio": "double", "tags": "repeated string", "attributes": "map<string, string>", "note": "optional string",
    "status": "Status", "later": "string",
}  # fmt: skip
TIMES = ("at", "seen")
TEXTS = ("day", "clock", "uid")
# of the second client, which has no file of it, and no module where protoc's import would look for it
DECIMAL_PROTO = """\
syntax = "proto3";
package confluent.type;
message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
"""
DECIMAL_MODULE = ("from confluent.type import", "from confluent_kafka.schema_registry.confluent.type import")


def proto(*names: str, package: str = "orders", is_narrow: bool = False) -> str:
    """The file with these fields; is_narrow: the id has 32 bits."""
    kinds = KINDS | ({"id": "int32"} if is_narrow else {})
    fields = "".join(f"  {kinds[name]} {name} = {list(KINDS).index(name) + 1};\n" for name in names)
    return (
        f'syntax = "proto3";\npackage {package};\nimport "google/protobuf/timestamp.proto";\n'
        'import "confluent/type/decimal.proto";\n'
        f"message Order {{\n{fields}}}\nenum Status {{ NEW = 0; PAID = 1; }}\n"
    )


@cache
def message_class(*names: str, is_narrow: bool = False) -> Any:
    """The class that protoc generates for a file with these fields."""
    stem = f"{'narrow' if is_narrow else 'order'}_{'_'.join(names)}"
    return compiled_class(stem, proto(*names, package=stem, is_narrow=is_narrow), "Order")


def compiled_class(stem: str, text: str, message: str) -> Any:
    """The class that protoc generates for a message of a file."""
    return getattr(compiled_module(stem, text), message)


def compiled_module(stem: str, text: str) -> Any:
    """The module that protoc generates for a file."""
    with TemporaryDirectory(prefix="headrace-test-") as name:
        folder = Path(name)
        (folder / f"{stem}.proto").write_text(text)
        (folder / "confluent" / "type").mkdir(parents=True)
        (folder / "confluent" / "type" / "decimal.proto").write_text(DECIMAL_PROTO)
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", f"{stem}.proto"]
        subprocess.run(command, cwd=folder, check=True)
        made = folder / f"{stem}_pb2.py"
        made.write_text(made.read_text().replace(*DECIMAL_MODULE))
        spec = importlib.util.spec_from_file_location(made.stem, made)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def protobuf_writer(made: Orders, *names: str, is_narrow: bool = False) -> Callable[[Order], bytes]:
    """Write the named fields of an order, all by default."""
    names = names or tuple(KINDS)[:-1]
    kind = message_class(*names, is_narrow=is_narrow)
    serializer = ProtobufSerializer(kind, made.registry, {"use.deprecated.format": False})

    def write(order: Order) -> bytes:
        message = kind()
        for name in names:
            set_field(message, name, order[name])
        return bytes(serializer(message, made.context()) or b"")

    return write


def set_field(message: Any, name: str, value: Any) -> None:
    """Set a field of a message to what an order has."""
    if value is None:
        return
    if name in TIMES:
        getattr(message, name).FromDatetime(value)
    elif name == "amount":
        message.amount.CopyFrom(to_proto_decimal(value))
    elif name == "nanos":
        message.nanos.seconds, message.nanos.nanos = divmod(value, 1_000_000_000)
    elif name == "tags":
        message.tags.extend(value)
    elif name == "attributes":
        message.attributes.update(value)
    elif name == "status":
        message.status = {"NEW": 0, "PAID": 1}[value]
    else:
        setattr(message, name, str(value) if name in TEXTS else value)
