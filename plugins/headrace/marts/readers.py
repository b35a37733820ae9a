"""Which models read a dataset, from dbt's manifest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any


@dataclass(frozen=True, slots=True)
class Readers:
    """The models behind a dataset: first those that read its staging table, then those that read models.

    first and further are names; in `further` each model comes after those that it reads.
    """

    first: tuple[str, ...] = ()
    further: tuple[str, ...] = ()


def readers(manifest: Any) -> dict[str, Readers]:
    """The readers of each table of the schema staging; ephemeral models, which are no tables, are not among them."""
    parents = {
        node.unique_id: set(node.depends_on.nodes)
        for node in manifest.nodes.values()
        if str(node.resource_type) == "model"
    }
    order = [node for node in TopologicalSorter(parents).static_order() if node in parents]
    built = {unique_id: node.name for unique_id, node in manifest.nodes.items() if not node.is_ephemeral_model}
    return {
        source.identifier: _readers_of(source.unique_id, parents, order, built)
        for source in manifest.sources.values()
        if source.schema == "staging"
    }


def _readers_of(
    source: str, parents: Mapping[str, set[str]], order: Iterable[str], built: Mapping[str, str]
) -> Readers:
    unbuilt, behind = {source}, set[str]()  # the source and the ephemeral models on top of it; the tables behind
    first: list[str] = []
    further: list[str] = []
    for model in order:
        if not parents[model] & (unbuilt | behind):
            continue
        is_further = bool(parents[model] & behind)
        if model not in built:
            (behind if is_further else unbuilt).add(model)
            continue
        behind.add(model)
        (further if is_further else first).append(built[model])
    return Readers(tuple(first), tuple(further))
