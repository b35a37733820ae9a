"""The button that opens the page "Headrace" from a Headrace task."""

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

OPERATORS = frozenset({"PlanOperator", "DrainOperator", "LoadOperator", "BuildOperator", "VerifyOperator"})
TAG = "headrace"  # every DAG of Headrace has this tag; other tasks of other DAGs get no button


class HeadraceLink(BaseOperatorLink):
    """Shown at every task of a Headrace DAG and at Headrace's operators; the API server computes it."""

    name = "Headrace"

    def get_link(self, operator: Any, *, ti_key: "TaskInstanceKey") -> str:
        """The page's address; empty for another operator of another DAG, so that Airflow shows no button."""
        from airflow.configuration import conf

        if operator.task_type not in OPERATORS and (operator.dag is None or TAG not in operator.dag.tags):
            return ""
        return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/plugin/headrace"
