"""The button that leads from a Headrace task to the page "Headrace"."""

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

TAG = "headrace"  # every DAG of Headrace has it, and the tasks of other DAGs get no button


class HeadraceLink(BaseOperatorLink):
    """Shown at every task of a Headrace DAG while it runs and afterwards; worked out by the API server."""

    name = "Headrace"

    def get_link(self, operator: Any, *, ti_key: "TaskInstanceKey") -> str:
        """The page's address, or nothing at a task of another DAG: Airflow shows no button then."""
        from airflow.configuration import conf

        if operator.dag is None or TAG not in operator.dag.tags:
            return ""
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/plugin/headrace"
