"""Headrace in Airflow: DAGs, operators, connections, forms and the page.

The only package that imports Airflow. `dags` makes the DAGs of a project, `operators` has what they consist of, for
DAGs of one's own, `connections` gives tasks their deployment, `page` serves /headrace. May import all packages.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import DAG


def dags(
    datasets: Path | str | None = None, *, on_failure_callback: Sequence[Callable[[Any], Any]] = ()
) -> "dict[str, DAG]":
    """The DAGs of a project, by dag_id, for a file in Airflow's dags folder.

        from pathlib import Path
        from headrace.airflow import dags
        globals().update(dags(datasets=Path(__file__).parent / "sales" / "datasets"))

    datasets: the folder of the declarations; dbt/ and data-files/ are beside it. Defaults to that of HEADRACE_PROJECT.
    on_failure_callback: notifiers of Airflow's, called with the context of each failed run. Defaults to none.
    ingest_<dataset> and load_<dataset> of each dataset, build_marts, follow_topics, verify_ingestion,
    replay_dead_letters, reload_range, check_freshness and audit_marts. Nothing is connected. A declaration that cannot
    be used has a DAG whose runs fail with the reason.
    """
    from headrace.optional import needs

    with needs("airflow"):
        from headrace.airflow.dag_factory import project_dags
        from headrace.airflow.project import project_of
    made = project_dags(project_of(datasets))
    for each in made.values() if on_failure_callback else ():
        each.on_failure_callback, each.has_on_failure_callback = list(on_failure_callback), True
    return made
