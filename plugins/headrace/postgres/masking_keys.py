"""The key of a dataset's masks: one and the same for all that is staged, or equal values would have two masks."""

from typing import Any

from psycopg import Connection

from headrace.command import Command
from headrace.contracts.masks import key_id
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError


def check_masking_key(connection: Connection[Any], dataset: Dataset) -> None:
    """Raise SettingError for masks without a key, DatasetError for another key than that of what is staged.

    The first key is remembered by its id. The caller's transaction covers it, and nothing was staged in it yet.
    """
    dataset.require_masking_key()
    if dataset.masking_key is None:
        return
    found = key_id(dataset.masking_key)
    connection.execute(
        "update headrace.datasets set masking_key_id = %s where dataset = %s and masking_key_id is null",
        (found, dataset.name),
    )
    row = connection.execute(
        "select masking_key_id from headrace.datasets where dataset = %s", (dataset.name,)
    ).fetchone()
    if row is not None and row[0] != found:
        reset = Command("reset", dataset.name)
        raise DatasetError(
            f"{dataset.name}: HEADRACE_MASKING_KEY is the key {found}, what is staged was masked by {row[0]}: equal "
            f"values would have two masks; nothing was changed; restore the key, or `{reset}` forgets what was staged "
            "and the next run reads the source from its start",
            command=reset,
        )
