"""Which models read a dataset: from the staging table, through ephemeral models, or from other models."""

from types import SimpleNamespace
from typing import Any

from headrace.marts.readers import Readers, readers


def model(name: str, *parents: str, is_ephemeral: bool = False) -> Any:
    return SimpleNamespace(
        unique_id=name,
        name=name,
        resource_type="model",
        is_ephemeral_model=is_ephemeral,
        depends_on=SimpleNamespace(nodes=list(parents)),
    )


def source(name: str, schema: str = "staging") -> Any:
    return SimpleNamespace(unique_id=f"source.{name}", identifier=name, schema=schema)


def manifest(sources: list[Any], *models: Any) -> Any:
    return SimpleNamespace(
        nodes={node.unique_id: node for node in models}, sources={item.unique_id: item for item in sources}
    )


def test_readers_are_ordered_by_what_they_read() -> None:
    found = readers(
        manifest(
            [source("jobs"), source("users"), source("empty"), source("elsewhere", "other")],
            model("top", "revenues"),
            model("revenues", "jobs", "users"),
            model("jobs", "stg_jobs"),
            model("users", "stg_users"),
            model("stg_jobs", "source.jobs", is_ephemeral=True),
            model("stg_users", "source.users", is_ephemeral=True),
            model("between", "jobs", is_ephemeral=True),
            model("behind", "between"),
        )
    )
    assert found.keys() == {"jobs", "users", "empty"}
    assert found["jobs"].first == ("jobs",)
    assert set(found["jobs"].further) == {"revenues", "top", "behind"}
    assert found["jobs"].further.index("revenues") < found["jobs"].further.index("top")
    assert found["users"] == Readers(("users",), ("revenues", "top"))
    assert found["empty"] == Readers()
