"""Orders as Protobuf's own generated code writes them: the second client's messages are not made by our compiler."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

from tests.support.orders import Order, Orders

KINDS = {
    "id": "int64", "amount": "string", "at": "google.protobuf.Timestamp", "nanos": "int64",
    "seen": "google.protobuf.Timestamp", "day": "string", "clock": "string", "uid": "string", "raw": "bytes",
    "ratio": "double", "tags": "repeated string", "attributes": "map<string, string>", "note": "optional string",
    "status": "Status", "later": "string",
}  # fmt: skip
TIMES = ("at", "seen")
TEXTS = ("amount", "day", "clock", "uid")


def proto(*names: str, package: str = "orders") -> str:
    fields = "".join(f"  {KINDS[name]} {name} = {list(KINDS).index(name) + 1};\n" for name in names)
    return (
        f'syntax = "proto3";\npackage {package};\nimport "google/protobuf/timestamp.proto";\n'
        f"message Order {{\n{fields}}}\nenum Status {{ NEW = 0; PAID = 1; }}\n"
    )


@cache
def message_class(*names: str) -> Any:
    """The class that protoc generates for a file with these fields."""
    stem = f"order_{'_'.join(names)}"
    return compiled_class(stem, proto(*names, package=stem), "Order")


def compiled_class(stem: str, text: str, message: str) -> Any:
    """The class that protoc generates for a message of a file."""
    folder = Path(mkdtemp(prefix="headrace-test-"))
    (folder / f"{stem}.proto").write_text(text)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", f"{stem}.proto"]
    subprocess.run(command, cwd=folder, check=True)
    spec = importlib.util.spec_from_file_location(f"{stem}_pb2", folder / f"{stem}_pb2.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, message)


def protobuf_writer(made: Orders, *names: str) -> Callable[[Order], bytes]:
    """Write the named fields of an order, all by default."""
    names = names or tuple(KINDS)[:-1]
    kind = message_class(*names)
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
    elif name == "tags":
        message.tags.extend(value)
    elif name == "attributes":
        message.attributes.update(value)
    elif name == "status":
        message.status = {"NEW": 0, "PAID": 1}[value]
    else:
        setattr(message, name, str(value) if name in TEXTS else value)
