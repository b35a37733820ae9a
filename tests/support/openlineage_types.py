"""Read events, one JSON document a line, as openlineage-python's types; fail where one of them does not fit.

Run by `make lineage` with openlineage-python on its path. Each known facet becomes the class of its name.
"""

import importlib
import json
import pkgutil
import sys
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import attr
from openlineage.client import event_v2
from openlineage.client import generated as modules

CLASSES = {
    name: value
    for module in pkgutil.iter_modules(modules.__path__)
    for name, value in vars(importlib.import_module(f"{modules.__name__}.{module.name}")).items()
    if isinstance(value, type) and attr.has(value)
}
OWN = {
    "schema": "SchemaDatasetFacet",
    "dataSource": "DatasourceDatasetFacet",
    "columnLineage": "ColumnLineageDatasetFacet",
    "outputStatistics": "OutputStatisticsOutputDatasetFacet",
}


def read(kind: Any, value: Any, path: str) -> Any:
    """The value as an object of a type of openlineage-python."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is not None and (origin is Union or origin.__name__ == "UnionType"):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (each for each in arguments if each is not type(None))
        return read(kind, value, path)
    if origin is list:
        return [read(arguments[0], each, f"{path}/{number}") for number, each in enumerate(value)]
    if origin is dict:
        return {key: read(_facet(key, arguments[1]), each, f"{path}/{key}") for key, each in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if not (isinstance(kind, type) and attr.has(kind)):
        if isinstance(kind, type) and kind in (str, int, bool) and not isinstance(value, kind):
            raise TypeError(f"{path}: {value!r} is no {kind.__name__}")
        return value
    known = {each.name for each in attr.fields(kind)}
    hints = get_type_hints(kind)
    if unknown := {name for name in value if name.lstrip("_") not in known and name not in known}:
        if kind.__name__ in ("BaseFacet", "DatasetFacet", "RunFacet", "JobFacet"):
            return value  # of Airflow's own
        raise TypeError(f"{path}: {kind.__name__} has no {unknown}")
    given = {name: read(hints[name], each, f"{path}/{name}") for name, each in value.items() if name in known}
    init = {each.name: each.alias for each in attr.fields(kind) if each.init}
    return kind(**{init[name]: each for name, each in given.items() if name in init})


def _facet(name: str, kind: Any) -> Any:
    return CLASSES[OWN[name]] if name in OWN else kind


if __name__ == "__main__":
    count = 0
    for line in sys.stdin:
        read(event_v2.RunEvent, json.loads(line), "event")
        count += 1
    print(count)
