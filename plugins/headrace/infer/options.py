"""What `headrace infer` may be told besides a name."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "topic", "stream", "subject", "table"]
KINDS: tuple[Kind, ...] = ("file", "topic", "stream", "subject", "table")
SAMPLE_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class InferOptions:
    """kind: what the argument names; None: found out. name: the dataset's; None: made of the source's.

    topic: the topic to declare for a file or a table. records: the size of the sample.
    """

    kind: Kind | None = None
    name: str | None = None
    topic: str | None = None
    records: int = SAMPLE_RECORDS
