"""Read a dashboard with Grafana's own types, write it, and print the path of what they did not keep.

Run by `make alerts` in an environment of its own, which has grafana-foundation-sdk and nothing of Headrace.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(before: Any, after: Any, path: str) -> Iterator[str]:
    """Paths of values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, value in enumerate(before):
            yield from lost(value, after[number], f"{path}/{number}")
    elif before != after:
        yield path


register_default_plugins()
document = json.loads(Path(sys.argv[1]).read_text())
print("\n".join(lost(document, json.loads(JSONEncoder().encode(Dashboard.from_json(document))), "")))
