"""What the view headrace.status says, for people and for programs."""

from typing import Any

from psycopg.rows import dict_row

from headrace.database import Connect, database

COLUMNS = (
    "dataset",
    "partition",
    "next_offset",
    "lag",
    "staged",
    "dead",
    "rows_per_s",
    "staging_freshness_s",
    "unbuilt_s",
)


def read_status(connect: Connect) -> list[dict[str, Any]]:
    """One dictionary per dataset and partition, with the columns of headrace.status."""
    with database(connect) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from headrace.status order by dataset, partition").fetchall()


def render(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, then dead letters by reason and errors."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not rows:
        console.print("nothing was ingested yet; `headrace load users` and `headrace drain jobs` begin")
        return
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name.replace("_", " "), justify="left" if name == "dataset" else "right")
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in COLUMNS))
    console.print(table)
    for dataset, row in {row["dataset"]: row for row in rows}.items():
        if row["dead_by_reason"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(row["dead_by_reason"].items()))
            console.print(f"{dataset}: dead letters: {reasons}")
        if row["last_error"]:
            console.print(f"{dataset}: {row['last_error']}", markup=False)
